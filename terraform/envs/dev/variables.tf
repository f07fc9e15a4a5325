variable "region" {
  description = "Region of everything."
  type        = string
  default     = "us-east-1"
}

variable "zones" {
  description = "Three availability zones; one where your GPU instances are sold must be among them."
  type        = list(string)
  default     = ["us-east-1a", "us-east-1b", "us-east-1c"]
}

variable "cidr" {
  description = "Addresses of the network."
  type        = string
  default     = "10.20.0.0/16"
}

variable "kubernetes_version" {
  description = "Of control plane and nodes."
  type        = string
  default     = "1.34"
}

variable "public_access_cidrs" {
  description = "Who may reach the API server over the internet. Empty: nobody."
  type        = list(string)
  default     = []
}

variable "administrator_arns" {
  description = "IAM roles or users who administer the cluster, by a name of your choice."
  type        = map(string)
  default     = {}

  validation {
    condition     = length(var.administrator_arns) > 0
    error_message = "Nobody could enter the cluster: name an administrator in terraform.tfvars, e.g. administrator_arns = { platform = \"arn:aws:iam::111122223333:role/platform\" }."
  }
}

variable "node_groups" {
  description = "CPU node groups. `build/cluster/sizes-dev.tfvars.json` overrides them where it exists."
  type = map(object({
    instance_types = list(string)
    min_size       = number
    max_size       = number
    disk_gib       = optional(number, 50)
    spot           = optional(bool, false)
    labels         = optional(map(string), {})
  }))
  default = {
    platform = { instance_types = ["t3.xlarge"], min_size = 2, max_size = 4 }
  }
}

variable "gpu" {
  description = "GPU nodes; none runs while no pod asks for one."
  type = object({
    instance_types = list(string)
    spot           = bool
    min_size       = number
    max_size       = number
  })
  default = {
    instance_types = ["g5.xlarge", "g6.xlarge"]
    spot           = true
    min_size       = 0
    max_size       = 1
  }
}

variable "database" {
  description = "PostgreSQL."
  type = object({
    instance_class  = string
    storage_gib     = optional(number, 20)
    max_storage_gib = optional(number, 100)
    multi_az        = bool
    backup_days     = number
  })
  default = {
    instance_class = "db.t4g.medium"
    multi_az       = false
    backup_days    = 7
  }
}

variable "redis" {
  description = "Redis: online features, routes, the prediction stream."
  type = object({
    node_type     = string
    replicas      = number
    snapshot_days = number
  })
  default = {
    node_type     = "cache.t4g.small"
    replicas      = 0
    snapshot_days = 1
  }
}

variable "alarm_emails" {
  description = "Who is told of alarms and of the budget."
  type        = set(string)
  default     = []

  validation {
    condition     = length(var.alarm_emails) > 0
    error_message = "Nobody would be told of an alarm: name an address in terraform.tfvars, e.g. alarm_emails = [\"platform@example.com\"]."
  }
}

variable "monthly_budget_usd" {
  description = "What a month may cost; `make infra-plan` prints the estimate to compare with."
  type        = number
  default     = 800
}

variable "expendable" {
  description = "Whether `make infra-destroy` may take the data along. Change it and apply before you destroy."
  type        = bool
  default     = true
}

variable "github_repository" {
  description = "Whose workflows deliver, e.g. example/platform (docs/delivery.md). Empty: none."
  type        = string
  default     = ""
}
