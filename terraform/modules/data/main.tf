################################################################################
# Data: all that outlives the cluster. One key encrypts it.
#
# buckets.tf   artifacts of the registry, copies of the offline features
# files.tf     the folder that pods share
# database.tf  PostgreSQL: the ledger of decisions, the registry's tables
# redis.tf     Redis: online features, routes, the prediction stream
# images.tf    container images, one repository for each role
# secrets.tf   entries for the platform's Secrets, without their values
################################################################################

data "aws_caller_identity" "current" {}

locals {
  account = data.aws_caller_identity.current.account_id
}

resource "aws_kms_key" "this" {
  description             = "${var.name}: buckets, files, databases, images, secrets"
  enable_key_rotation     = true
  deletion_window_in_days = 30

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "AccountDecidesByIAM"
        Effect    = "Allow"
        Principal = { AWS = "arn:aws:iam::${local.account}:root" }
        Action    = "kms:*"
        Resource  = "*"
      },
      {
        Sid       = "LogsOfTheDatabases"
        Effect    = "Allow"
        Principal = { Service = "logs.${var.region}.amazonaws.com" }
        Action    = ["kms:Encrypt*", "kms:Decrypt*", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:Describe*"]
        Resource  = "*"
        Condition = {
          ArnLike = {
            "kms:EncryptionContext:aws:logs:arn" = [
              "arn:aws:logs:${var.region}:${local.account}:log-group:/aws/rds/instance/${var.name}/*",
              "arn:aws:logs:${var.region}:${local.account}:log-group:/aws/elasticache/${var.name}/*",
            ]
          }
        }
      },
    ]
  })
}

resource "aws_kms_alias" "this" {
  name          = "alias/${var.name}-data"
  target_key_id = aws_kms_key.this.key_id
}
