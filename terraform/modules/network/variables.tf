variable "name" {
  description = "Prefix of all names, e.g. mlplatform-dev."
  type        = string
}

variable "region" {
  description = "Region, e.g. us-east-1."
  type        = string
}

variable "zones" {
  description = "Three availability zones of the region. A zone where your GPU instances are sold must be among them."
  type        = list(string)

  validation {
    condition     = length(var.zones) == 3 && length(distinct(var.zones)) == 3
    error_message = "Give three different zones: one may be lost, and two still form a majority."
  }
  validation {
    condition     = alltrue([for zone in var.zones : startswith(zone, var.region)])
    error_message = "All zones must lie in the region: zone names begin with the region's name."
  }
}

variable "cidr" {
  description = "Addresses of the network. Must not overlap with networks that are peered with it."
  type        = string
  default     = "10.20.0.0/16"

  validation {
    condition     = can(cidrhost(var.cidr, 0)) && endswith(var.cidr, "/16")
    error_message = "Give a /16 block, e.g. 10.20.0.0/16: pods take one address each."
  }
}

variable "nat_per_zone" {
  description = "A NAT gateway in each zone (true) or one for all (false: cheaper, and a lost zone cuts the others off the internet)."
  type        = bool
}

variable "interface_endpoints" {
  description = "Services reached without the internet, as the last part of their endpoint's name. Each costs by the hour and zone."
  type        = set(string)
  default     = ["ec2", "ecr.api", "ecr.dkr", "eks", "eks-auth", "elasticfilesystem", "logs", "secretsmanager", "sts"]
}
