output "accounts" {
  description = "Role of each service account, as namespace/name."
  value       = { for key, account in local.accounts : "${account.namespace}/${account.name}" => aws_iam_role.this[key].arn }
}
