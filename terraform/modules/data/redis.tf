################################################################################
# Redis: over TLS, and a user for each role
################################################################################

locals {
  # Written from deploy/access_lists.py by `python -m deploy.infra_accounts`: one list of rights for
  # the Redis of the chart and for this one.
  redis_access = jsondecode(file("${path.module}/redis_access.json"))
}

resource "aws_elasticache_subnet_group" "this" {
  name        = var.name
  description = "Subnets without a way to the internet"
  subnet_ids  = var.data_subnet_ids
}

resource "aws_elasticache_parameter_group" "this" {
  name        = "${var.name}-redis7"
  family      = "redis7"
  description = "Writes are refused where memory ends; nothing is evicted"

  parameter {
    name  = "maxmemory-policy"
    value = "noeviction"
  }
}

resource "aws_elasticache_user" "role" {
  for_each = local.redis_access

  # With IAM authentication both must be equal. They are unique in the account: one for each environment.
  user_id       = "${var.name}-${each.key}"
  user_name     = "${var.name}-${each.key}"
  engine        = "redis"
  access_string = each.value

  # Closed until `make infra-apply` has given it a password: no IAM policy lets anybody connect.
  # The password is made there, because Terraform would write it into its state.
  authentication_mode {
    type = "iam"
  }

  lifecycle {
    ignore_changes = [authentication_mode]
  }
}

# Every group must have a user of this name. This one may not log in.
resource "aws_elasticache_user" "default" {
  user_id       = "${var.name}-default"
  user_name     = "default"
  engine        = "redis"
  access_string = "off ~* -@all"

  authentication_mode {
    type = "no-password-required"
  }
}

resource "aws_elasticache_user_group" "this" {
  user_group_id = var.name
  engine        = "redis"
  user_ids = concat(
    [aws_elasticache_user.default.user_id],
    [for user in aws_elasticache_user.role : user.user_id],
  )
}

resource "aws_cloudwatch_log_group" "redis" {
  #checkov:skip=CKV_AWS_338:Slow commands are looked at within days.
  name              = "/aws/elasticache/${var.name}/slow-log"
  retention_in_days = 30
  kms_key_id        = aws_kms_key.this.arn
}

resource "aws_elasticache_replication_group" "this" {
  #checkov:skip=CKV_AWS_31:Users with passwords and rights of their own (user group) take the place of one token for all.
  #checkov:skip=CKV2_AWS_50:A replica in another zone is a variable: prod has it, dev saves its price.
  replication_group_id = var.name
  description          = "Online features, routes, the prediction stream"
  engine               = "redis"
  engine_version       = "7.1"
  node_type            = var.redis.node_type
  port                 = 6379
  parameter_group_name = aws_elasticache_parameter_group.this.name

  num_cache_clusters         = 1 + var.redis.replicas
  automatic_failover_enabled = var.redis.replicas > 0
  multi_az_enabled           = var.redis.replicas > 0

  subnet_group_name          = aws_elasticache_subnet_group.this.name
  security_group_ids         = [aws_security_group.redis.id]
  transit_encryption_enabled = true
  transit_encryption_mode    = "required"
  at_rest_encryption_enabled = true
  kms_key_id                 = aws_kms_key.this.arn
  user_group_ids             = [aws_elasticache_user_group.this.id]

  snapshot_retention_limit   = var.redis.snapshot_days
  snapshot_window            = "02:00-03:00" # UTC
  maintenance_window         = "sun:05:30-sun:06:30"
  auto_minor_version_upgrade = true
  apply_immediately          = var.expendable

  log_delivery_configuration {
    destination      = aws_cloudwatch_log_group.redis.name
    destination_type = "cloudwatch-logs"
    log_format       = "json"
    log_type         = "slow-log"
  }
}

resource "aws_security_group" "redis" {
  name        = "${var.name}-redis"
  description = "Redis from the nodes"
  vpc_id      = var.vpc_id

  tags = { Name = "${var.name}-redis" }
}

resource "aws_vpc_security_group_ingress_rule" "redis" {
  security_group_id            = aws_security_group.redis.id
  description                  = "Redis from the nodes"
  referenced_security_group_id = var.node_security_group_id
  ip_protocol                  = "tcp"
  from_port                    = 6379
  to_port                      = 6379
}
