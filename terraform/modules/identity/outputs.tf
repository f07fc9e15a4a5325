output "accounts" {
  description = "Role of each service account, as namespace/name."
  value       = { for key, account in local.accounts : "${account.namespace}/${account.name}" => aws_iam_role.this[key].arn }
}

output "deliveries" {
  description = "AWS_ROLE_ARN of each environment of the GitHub repository."
  value       = { for name, role in aws_iam_role.delivery : name => role.arn }
}
