mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "111122223333" }
  }
}

variables {
  name                   = "mlplatform-test"
  region                 = "us-east-1"
  vpc_id                 = "vpc-1"
  private_subnet_ids     = ["subnet-a", "subnet-b", "subnet-c"]
  data_subnet_ids        = ["subnet-d", "subnet-e", "subnet-f"]
  node_security_group_id = "sg-1"
  expendable             = false
  database               = { instance_class = "db.m7g.large", multi_az = true, backup_days = 35 }
  redis                  = { node_type = "cache.m7g.large", replicas = 1, snapshot_days = 7 }
}

run "data_that_count_are_protected" {
  command = plan

  assert {
    condition     = aws_db_instance.this.deletion_protection && !aws_db_instance.this.skip_final_snapshot
    error_message = "The database could be deleted without a trace."
  }
  assert {
    condition     = alltrue([for bucket in aws_s3_bucket.this : !bucket.force_destroy])
    error_message = "A bucket could be emptied."
  }
  assert {
    condition     = alltrue([for secret in aws_secretsmanager_secret.this : secret.recovery_window_in_days == 30])
    error_message = "A deleted secret could not be had back."
  }
}

run "expendable_data_go_with_the_environment" {
  command = plan
  variables {
    expendable = true
  }

  assert {
    condition     = !aws_db_instance.this.deletion_protection && aws_db_instance.this.skip_final_snapshot
    error_message = "Destroying would fail."
  }
}

run "redis_with_a_replica_fails_over" {
  command = plan

  assert {
    condition     = aws_elasticache_replication_group.this.automatic_failover_enabled && aws_elasticache_replication_group.this.num_cache_clusters == 2
    error_message = "A lost zone would stop the gateway."
  }
}

run "redis_without_a_replica_promises_no_failover" {
  command = plan
  variables {
    redis = { node_type = "cache.t4g.small", replicas = 0, snapshot_days = 1 }
  }

  assert {
    condition     = !aws_elasticache_replication_group.this.automatic_failover_enabled
    error_message = "ElastiCache refuses failover without a replica."
  }
}

run "users_are_closed_until_they_have_a_password" {
  command = plan

  assert {
    condition     = alltrue([for user in aws_elasticache_user.role : user.authentication_mode[0].type == "iam"])
    error_message = "A user could log in before it has a password."
  }
  assert {
    condition     = startswith(aws_elasticache_user.default.access_string, "off ")
    error_message = "The user of everybody must be off."
  }
}

run "a_database_without_backups_is_refused" {
  command = plan
  variables {
    database = { instance_class = "db.m7g.large", multi_az = true, backup_days = 0 }
  }
  expect_failures = [var.database]
}

run "a_node_type_of_ec2_is_refused_for_redis" {
  command = plan
  variables {
    redis = { node_type = "m7g.large", replicas = 1, snapshot_days = 7 }
  }
  expect_failures = [var.redis]
}
