output "alarm_topic_arn" {
  description = "Where alarms go; subscribe your pager here."
  value       = aws_sns_topic.this.arn
}
