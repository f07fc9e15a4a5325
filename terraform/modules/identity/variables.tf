variable "cluster_name" {
  description = "The EKS cluster, and prefix of the roles."
  type        = string
}

variable "region" {
  description = "Region, e.g. us-east-1."
  type        = string
}

variable "namespace" {
  description = "Where the platform is released."
  type        = string
  default     = "mlplatform"
}

variable "bucket_arns" {
  description = "ARNs of the buckets `artifacts` and `offline`."
  type        = object({ artifacts = string, offline = string })
}

variable "kms_key_arn" {
  description = "Key of buckets and secrets."
  type        = string
}

variable "secret_arns" {
  description = "Entries in Secrets Manager that External Secrets may read."
  type        = list(string)

  validation {
    condition     = length(var.secret_arns) > 0 && !anytrue([for arn in var.secret_arns : endswith(arn, ":*")])
    error_message = "Name the entries one by one: a wildcard would hand out all secrets of the account."
  }
}

variable "environment" {
  description = "dev or prod; GitHub's environments are named after it."
  type        = string
}

variable "github_repository" {
  description = "Whose workflows deliver, e.g. example/platform. Empty: none."
  type        = string
  default     = ""

  validation {
    condition     = var.github_repository == "" || can(regex("^[A-Za-z0-9-]+/[A-Za-z0-9._-]+$", var.github_repository))
    error_message = "Give it as organisation/repository: a pattern in it would let strangers in."
  }
}

variable "state" {
  description = "Where Terraform's state of this environment is: workflows read its outputs."
  type        = object({ bucket = string, key = string })
}

variable "verifying_key_arn" {
  description = "The entry in Secrets Manager with the public key that models are verified with."
  type        = string
}
