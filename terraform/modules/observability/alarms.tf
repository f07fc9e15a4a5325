################################################################################
# Alarms: each on something that a person has to act on
################################################################################

locals {
  database_alarms = {
    database-cpu = {
      metric      = "CPUUtilization", above = true, threshold = 80
      description = "PostgreSQL has been busy for a quarter of an hour: look at the slow queries in its log."
    }
    database-storage = {
      metric      = "FreeStorageSpace", above = false, threshold = 5 * 1024 * 1024 * 1024
      description = "PostgreSQL has less than 5 GiB left and cannot grow: raise database.max_storage_gib."
    }
    database-connections = {
      metric      = "DatabaseConnections", above = true, threshold = var.database_max_connections
      description = "PostgreSQL is about to run out of connections: find who keeps them, or take a larger class."
    }
  }

  redis_alarms = {
    redis-memory = {
      metric      = "DatabaseMemoryUsagePercentage", above = true, threshold = 75
      description = "Redis is filling up; full, it refuses features and predictions: take a larger node type."
    }
    redis-cpu = {
      metric      = "EngineCPUUtilization", above = true, threshold = 80
      description = "Redis's one thread is busy: requests will miss their budget soon."
    }
  }

  redis_node_alarms = merge([
    for node in var.redis_nodes : {
      for key, alarm in local.redis_alarms : "${key}-${node}" => merge(alarm, { node = node })
    }
  ]...)
}

resource "aws_cloudwatch_metric_alarm" "database" {
  for_each = local.database_alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.description
  namespace           = "AWS/RDS"
  metric_name         = each.value.metric
  dimensions          = { DBInstanceIdentifier = var.database_id }
  statistic           = "Average"
  period              = 300
  evaluation_periods  = 3
  threshold           = each.value.threshold
  comparison_operator = each.value.above ? "GreaterThanThreshold" : "LessThanThreshold"
  treat_missing_data  = "breaching" # a database that says nothing is not well
  alarm_actions       = [aws_sns_topic.this.arn]
  ok_actions          = [aws_sns_topic.this.arn]
}

resource "aws_cloudwatch_metric_alarm" "redis" {
  for_each = local.redis_node_alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.description
  namespace           = "AWS/ElastiCache"
  metric_name         = each.value.metric
  dimensions          = { CacheClusterId = each.value.node }
  statistic           = "Average"
  period              = 300
  evaluation_periods  = 3
  threshold           = each.value.threshold
  comparison_operator = "GreaterThanThreshold"
  treat_missing_data  = "breaching"
  alarm_actions       = [aws_sns_topic.this.arn]
  ok_actions          = [aws_sns_topic.this.arn]
}

resource "aws_cloudwatch_metric_alarm" "nat" {
  for_each = var.nat_gateway_ids

  alarm_name          = "${var.name}-nat-${each.key}"
  alarm_description   = "The NAT gateway of ${each.key} runs out of ports: connections to the internet fail."
  namespace           = "AWS/NATGateway"
  metric_name         = "ErrorPortAllocation"
  dimensions          = { NatGatewayId = each.value }
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 1
  threshold           = 0
  comparison_operator = "GreaterThanThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.this.arn]
}
