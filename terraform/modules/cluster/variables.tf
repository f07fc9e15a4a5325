variable "name" {
  description = "Name of the cluster, and prefix of what belongs to it, e.g. mlplatform-dev."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{2,30}$", var.name))
    error_message = "3 to 31 lower-case letters, digits and dashes, beginning with a letter: bucket and role names are made of it."
  }
}

variable "region" {
  description = "Region, e.g. us-east-1."
  type        = string
}

variable "kubernetes_version" {
  description = "Of control plane and nodes. EKS supports a version for 14 months; after that it costs six times as much."
  type        = string

  validation {
    condition     = can(regex("^1\\.[0-9]{2}$", var.kubernetes_version))
    error_message = "Give major and minor version, e.g. 1.34."
  }
}

variable "subnet_ids" {
  description = "Private subnets of the control plane's interfaces and of all nodes."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) >= 2
    error_message = "EKS needs subnets in two zones or more."
  }
}

variable "public_access_cidrs" {
  description = "Who may reach the API server over the internet. Empty: nobody, only from inside the network (VPN, peering, or a runner there)."
  type        = list(string)
  default     = []

  validation {
    condition     = !contains(var.public_access_cidrs, "0.0.0.0/0")
    error_message = "The API server is not opened to the whole internet: name your office's or your runner's addresses."
  }
}

variable "administrator_arns" {
  description = "IAM roles or users who administer the cluster, by a name of your choice, e.g. { platform = \"arn:aws:iam::111122223333:role/platform\" }."
  type        = map(string)

  validation {
    condition     = alltrue([for arn in values(var.administrator_arns) : can(regex("^arn:aws:iam::[0-9]{12}:(role|user)/", arn))])
    error_message = "Each must be the ARN of an IAM role or user."
  }
}

variable "node_groups" {
  description = "CPU node groups by name. A use case's plan fills the sizes; the autoscaler moves between min_size and max_size."
  type = map(object({
    instance_types = list(string)
    min_size       = number
    max_size       = number
    disk_gib       = optional(number, 50)
    spot           = optional(bool, false)
    labels         = optional(map(string), {})
  }))

  validation {
    condition     = anytrue([for group in values(var.node_groups) : group.min_size >= 2 && !group.spot])
    error_message = "One group must always have two nodes that are not spot: serving survives a drained node, and add-ons need a place."
  }
  validation {
    condition     = alltrue([for group in values(var.node_groups) : group.min_size >= 0 && group.max_size >= max(group.min_size, 1)])
    error_message = "In each group max_size must be at least 1, and not below min_size."
  }
  validation {
    condition     = alltrue([for group in values(var.node_groups) : group.disk_gib >= 30])
    error_message = "A node's disk needs 30 GiB or more: the training image alone unpacks to several."
  }
}

variable "log_days" {
  description = "Days that the control plane's logs are kept, audit included."
  type        = number
  default     = 365
}

variable "tags" {
  description = "Tags of what EKS makes by itself: instances and volumes do not take the provider's."
  type        = map(string)
}
