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
