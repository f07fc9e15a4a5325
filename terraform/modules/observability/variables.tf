variable "name" {
  description = "Prefix of all names, e.g. mlplatform-dev."
  type        = string
}

variable "environment" {
  description = "Value of the tag Environment, by which costs are counted."
  type        = string
}

variable "region" {
  description = "Region, e.g. us-east-1."
  type        = string
}

variable "vpc_id" {
  description = "Network whose traffic is logged."
  type        = string
}

variable "nat_gateway_ids" {
  description = "NAT gateways by zone."
  type        = map(string)
}

variable "database_id" {
  description = "The PostgreSQL instance."
  type        = string
}

variable "database_max_connections" {
  description = "Connections above which somebody should look: about 80 % of what the instance class allows."
  type        = number
}

variable "redis_nodes" {
  description = "Nodes of Redis, by name."
  type        = set(string)
}

variable "alarm_emails" {
  description = "Who is told of alarms and of the budget."
  type        = set(string)

  validation {
    condition     = alltrue([for address in var.alarm_emails : can(regex("^[^@ ]+@[^@ ]+\\.[^@ ]+$", address))])
    error_message = "Each must be an e-mail address."
  }
}

variable "monthly_budget_usd" {
  description = "What a month may cost, in US dollars; told at 80 %, and when the forecast passes it. Nothing is stopped."
  type        = number

  validation {
    condition     = var.monthly_budget_usd > 0
    error_message = "The budget must be above 0; `make infra-plan` prints the estimate."
  }
}

variable "flow_log_days" {
  description = "Days that flow logs are kept."
  type        = number
}
