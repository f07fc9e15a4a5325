variable "name" {
  description = "Prefix of all names, e.g. mlplatform-dev."
  type        = string
}

variable "cluster_name" {
  description = "The EKS cluster that the nodes join."
  type        = string
}

variable "node_role_arn" {
  description = "Role of the nodes."
  type        = string
}

variable "subnet_ids" {
  description = "Private subnets. Give only those of zones where the instance type is sold."
  type        = list(string)
}

variable "instance_types" {
  description = "Instance types with NVIDIA GPUs, best first; with spot, more types are interrupted less often. All of one kind of GPU."
  type        = list(string)
  default     = ["g5.xlarge"]

  validation {
    condition     = length(var.instance_types) > 0 && alltrue([for type in var.instance_types : can(regex("^(g|p)[0-9]", type))])
    error_message = "GPU instances begin with g or p, e.g. g5.xlarge."
  }
}

variable "spot" {
  description = "Take spot capacity: about a third of the price, may be taken away with two minutes' notice. For training, not for serving."
  type        = bool
  default     = false
}

variable "min_size" {
  description = "Least number of nodes. 0: the group costs nothing while it is not used, and its first pod waits some minutes."
  type        = number
  default     = 0

  validation {
    condition     = var.min_size >= 0
    error_message = "min_size must be 0 or more."
  }
}

variable "max_size" {
  description = "Greatest number of nodes: the most that a mistake can cost. A rollout serves two versions side by side."
  type        = number
  default     = 2

  validation {
    condition     = var.max_size >= 1 && var.max_size <= 50
    error_message = "max_size must be between 1 and 50; beyond it, ask yourself and your quota first."
  }
}

variable "disk_gib" {
  description = "Disk of a node in GiB: Triton's image unpacks to about 20."
  type        = number
  default     = 120
}

variable "tags" {
  description = "Tags of what EKS makes by itself: instances and volumes do not take the provider's."
  type        = map(string)
}
