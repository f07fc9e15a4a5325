output "environment" {
  description = "Name of the environment."
  value       = local.environment
}

output "region" {
  description = "Of everything."
  value       = var.region
}

output "cluster" {
  description = "The cluster: `aws eks update-kubeconfig --name <name>` opens it."
  value = {
    name     = module.cluster.name
    version  = module.cluster.version
    endpoint = module.cluster.endpoint
  }
}

output "network" {
  description = "Addresses: of the network, and of the databases' subnets."
  value = {
    cidr       = module.network.cidr
    data_cidrs = module.network.data_cidrs
  }
}

output "gpu" {
  description = "How pods get onto GPU nodes."
  value = {
    node_group    = module.gpu.node_group_name
    node_selector = module.gpu.node_selector
    tolerations   = module.gpu.tolerations
  }
}

output "buckets" {
  description = "Names of the buckets, by purpose."
  value       = module.data.buckets
}

output "files" {
  description = "The folder that pods share."
  value       = module.data.files
}

output "database" {
  description = "PostgreSQL."
  value       = module.data.database
}

output "redis" {
  description = "Redis."
  value       = module.data.redis
}

output "image_registry" {
  description = "REGISTRY of `make images`."
  value       = module.data.image_registry
}

output "secrets" {
  description = "Entries in Secrets Manager, by the Secret that they become."
  value       = module.data.secrets
}

output "accounts" {
  description = "Role of each service account, as namespace/name."
  value       = module.identity.accounts
}

output "alarm_topic_arn" {
  description = "Where alarms go."
  value       = module.observability.alarm_topic_arn
}

output "expendable" {
  description = "Whether the data may be destroyed."
  value       = var.expendable
}

output "deliveries" {
  description = "AWS_ROLE_ARN of each environment of the GitHub repository."
  value       = module.identity.deliveries
}
