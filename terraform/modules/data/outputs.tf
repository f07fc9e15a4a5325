output "kms_key_arn" {
  description = "Key of all data."
  value       = aws_kms_key.this.arn
}

output "buckets" {
  description = "Names of the buckets, by purpose."
  value       = { for purpose, bucket in aws_s3_bucket.this : purpose => bucket.id }
}

output "bucket_arns" {
  description = "ARNs of the buckets, by purpose."
  value       = { for purpose, bucket in aws_s3_bucket.this : purpose => bucket.arn }
}

output "files" {
  description = "The folder that pods share: file system and access point."
  value = {
    file_system_id  = aws_efs_file_system.this.id
    access_point_id = aws_efs_access_point.this.id
  }
}

output "database" {
  description = "PostgreSQL: its address, and where RDS keeps the password of its first user."
  value = {
    id                = aws_db_instance.this.identifier
    host              = aws_db_instance.this.address
    port              = aws_db_instance.this.port
    master_secret_arn = one(aws_db_instance.this.master_user_secret[*].secret_arn)
  }
}

output "redis" {
  description = "Redis: its address over TLS, and the user of each role."
  value = {
    id    = aws_elasticache_replication_group.this.id
    host  = aws_elasticache_replication_group.this.primary_endpoint_address
    port  = aws_elasticache_replication_group.this.port
    users = { for role, user in aws_elasticache_user.role : role => user.user_name }
    # ElastiCache numbers the nodes; alarms need their names before there are any.
    nodes = [for number in range(1, 2 + var.redis.replicas) : format("%s-%03d", var.name, number)]
  }
}

output "image_registry" {
  description = "What stands before an image's name: REGISTRY of `make images`."
  value       = "${local.account}.dkr.ecr.${var.region}.amazonaws.com/${var.name}"
}

output "secrets" {
  description = "ARNs of the entries in Secrets Manager, by the Secret that they become."
  value       = { for name, secret in aws_secretsmanager_secret.this : name => secret.arn }
}
