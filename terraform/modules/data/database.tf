################################################################################
# PostgreSQL: the ledger of decisions, the registry's tables and its users
################################################################################

resource "aws_db_subnet_group" "this" {
  name        = var.name
  description = "Subnets without a way to the internet"
  subnet_ids  = var.data_subnet_ids
}

resource "aws_db_parameter_group" "this" {
  name        = "${var.name}-postgres17"
  family      = "postgres17"
  description = "TLS only; changes of structure and slow queries are logged"

  parameter {
    name  = "rds.force_ssl"
    value = "1"
  }
  parameter {
    name  = "log_statement"
    value = "ddl"
  }
  parameter {
    name  = "log_min_duration_statement"
    value = "1000" # ms
  }
}

resource "aws_iam_role" "database_monitoring" {
  name = "${var.name}-database-monitoring"

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "monitoring.rds.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "aws:SourceAccount" = local.account } }
    }]
  })
}

resource "aws_iam_role_policy_attachment" "database_monitoring" {
  role       = aws_iam_role.database_monitoring.name
  policy_arn = "arn:aws:iam::aws:policy/service-role/AmazonRDSEnhancedMonitoringRole"
}

# Made before the instance: RDS would make it without encryption, and keep logs for ever.
resource "aws_cloudwatch_log_group" "database" {
  #checkov:skip=CKV_AWS_338:Queries of the database are looked at within weeks; audit is the ledger itself.
  name              = "/aws/rds/instance/${var.name}/postgresql"
  retention_in_days = 90
  kms_key_id        = aws_kms_key.this.arn
}

resource "aws_db_instance" "this" {
  #checkov:skip=CKV_AWS_157:Multi-AZ is a variable: prod has it, dev saves its price.
  #checkov:skip=CKV_AWS_293:Protection from deletion is a variable: prod has it, dev can be destroyed.
  identifier     = var.name
  engine         = "postgres"
  engine_version = "17" # minor versions come by themselves
  instance_class = var.database.instance_class

  allocated_storage     = var.database.storage_gib
  max_allocated_storage = var.database.max_storage_gib
  storage_type          = "gp3"
  storage_encrypted     = true
  kms_key_id            = aws_kms_key.this.arn

  # Roles and databases are made by a Job in the cluster, which alone can reach it.
  username = "platform"
  # RDS makes the password, keeps it in Secrets Manager and rotates it: it is in no state and no file.
  manage_master_user_password         = true
  master_user_secret_kms_key_id       = aws_kms_key.this.arn
  iam_database_authentication_enabled = true

  db_subnet_group_name   = aws_db_subnet_group.this.name
  parameter_group_name   = aws_db_parameter_group.this.name
  vpc_security_group_ids = [aws_security_group.database.id]
  publicly_accessible    = false
  multi_az               = var.database.multi_az
  ca_cert_identifier     = "rds-ca-rsa2048-g1"

  backup_retention_period    = var.database.backup_days
  backup_window              = "03:00-04:00" # UTC, before maintenance
  maintenance_window         = "sun:04:30-sun:05:30"
  auto_minor_version_upgrade = true
  copy_tags_to_snapshot      = true
  delete_automated_backups   = var.expendable
  deletion_protection        = !var.expendable
  skip_final_snapshot        = var.expendable
  final_snapshot_identifier  = var.expendable ? null : "${var.name}-final"

  enabled_cloudwatch_logs_exports = ["postgresql"]
  performance_insights_enabled    = true
  performance_insights_kms_key_id = aws_kms_key.this.arn
  monitoring_interval             = 60 # seconds
  monitoring_role_arn             = aws_iam_role.database_monitoring.arn

  depends_on = [aws_cloudwatch_log_group.database]
}

resource "aws_security_group" "database" {
  name        = "${var.name}-database"
  description = "PostgreSQL from the nodes"
  vpc_id      = var.vpc_id

  tags = { Name = "${var.name}-database" }
}

resource "aws_vpc_security_group_ingress_rule" "database" {
  security_group_id            = aws_security_group.database.id
  description                  = "PostgreSQL from the nodes"
  referenced_security_group_id = var.node_security_group_id
  ip_protocol                  = "tcp"
  from_port                    = 5432
  to_port                      = 5432
}
