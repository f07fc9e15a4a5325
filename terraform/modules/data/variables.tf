variable "name" {
  description = "Prefix of all names, e.g. mlplatform-dev."
  type        = string
}

variable "region" {
  description = "Region, e.g. us-east-1."
  type        = string
}

variable "vpc_id" {
  description = "Of the network."
  type        = string
}

variable "private_subnet_ids" {
  description = "Subnets of the nodes: the shared folder is mounted in each."
  type        = list(string)
}

variable "data_subnet_ids" {
  description = "Subnets of the databases."
  type        = list(string)
}

variable "node_security_group_id" {
  description = "Who may connect: the security group of all nodes."
  type        = string
}

variable "expendable" {
  description = "Whether `destroy` may take the data along: no protection from deletion, no last snapshot, buckets are emptied. For environments that hold nothing of value."
  type        = bool
}

variable "database" {
  description = "PostgreSQL. Sizes in GiB; storage grows by itself up to max_storage_gib."
  type = object({
    instance_class  = string
    storage_gib     = optional(number, 20)
    max_storage_gib = optional(number, 100)
    multi_az        = bool
    backup_days     = number
  })

  validation {
    condition     = startswith(var.database.instance_class, "db.")
    error_message = "Instance classes of RDS begin with db., e.g. db.t4g.medium."
  }
  validation {
    condition     = var.database.backup_days >= 1 && var.database.backup_days <= 35
    error_message = "Backups are kept for 1 to 35 days: 0 would switch them off, and with them the way back to a point in time."
  }
  validation {
    condition     = var.database.max_storage_gib > var.database.storage_gib && var.database.storage_gib >= 20
    error_message = "Storage begins at 20 GiB, and max_storage_gib must lie above it."
  }
}

variable "redis" {
  description = "ElastiCache. A replica stands in another zone and takes over when the first node is lost."
  type = object({
    node_type     = string
    replicas      = number
    snapshot_days = number
  })

  validation {
    condition     = startswith(var.redis.node_type, "cache.")
    error_message = "Node types of ElastiCache begin with cache., e.g. cache.t4g.small."
  }
  validation {
    condition     = var.redis.replicas >= 0 && var.redis.replicas <= 5
    error_message = "ElastiCache holds 0 to 5 replicas."
  }
}

variable "image_roles" {
  description = "Images of the platform; each gets a repository mlplatform-<role>."
  type        = set(string)
  default     = ["features", "gateway", "monitor", "operator", "pipeline", "postgres", "ray", "redis", "registry", "triton"]
}

variable "secret_names" {
  description = "The platform's Secrets, as the chart names them, and the public key of models."
  type        = set(string)
  default = [
    "mlplatform-ledger",
    "mlplatform-postgres",
    "mlplatform-ray",
    "mlplatform-redis-acl",
    "mlplatform-redis-archiver",
    "mlplatform-redis-features",
    "mlplatform-redis-gateway",
    "mlplatform-redis-operator",
    "mlplatform-registry-admin",
    "mlplatform-registry-monitor",
    "mlplatform-registry-operator",
    "mlplatform-registry-server",
    "mlplatform-registry-trainer",
    "mlplatform-signing",
    "mlplatform-verifying",
  ]
}
