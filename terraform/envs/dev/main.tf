################################################################################
# Development: small, and expendable: `make infra-destroy ENV=dev` takes everything along
#
# What differs between environments is in this file and in variables.tf; modules hold the rest.
################################################################################

locals {
  environment = "dev"
  name        = "mlplatform-${local.environment}"

  tags = {
    Project     = "mlplatform"
    Environment = local.environment
    ManagedBy   = "terraform"
  }
}

provider "aws" {
  region = var.region

  default_tags {
    tags = local.tags
  }
}

data "aws_caller_identity" "current" {}

module "network" {
  source = "../../modules/network"

  name         = local.name
  region       = var.region
  zones        = var.zones
  cidr         = var.cidr
  nat_per_zone = false # a lost zone may cut the others off the internet
  # The NAT gateway carries the rest: an endpoint costs by the hour and zone.
  interface_endpoints = ["ecr.api", "ecr.dkr", "eks-auth", "sts"]
}

module "cluster" {
  source = "../../modules/cluster"

  name                = local.name
  region              = var.region
  kubernetes_version  = var.kubernetes_version
  subnet_ids          = module.network.private_subnet_ids
  public_access_cidrs = var.public_access_cidrs
  administrator_arns  = var.administrator_arns
  node_groups         = var.node_groups
  log_days            = 365
  tags                = local.tags
}

module "gpu" {
  source = "../../modules/gpu"

  name           = local.name
  cluster_name   = module.cluster.name
  node_role_arn  = module.cluster.node_role_arn
  subnet_ids     = module.network.private_subnet_ids
  instance_types = var.gpu.instance_types
  spot           = var.gpu.spot
  min_size       = var.gpu.min_size
  max_size       = var.gpu.max_size
  tags           = local.tags
}

module "data" {
  source = "../../modules/data"

  name                   = local.name
  region                 = var.region
  vpc_id                 = module.network.vpc_id
  private_subnet_ids     = module.network.private_subnet_ids
  data_subnet_ids        = module.network.data_subnet_ids
  node_security_group_id = module.cluster.security_group_id
  expendable             = var.expendable
  database               = var.database
  redis                  = var.redis
}

module "identity" {
  source = "../../modules/identity"

  cluster_name      = module.cluster.name
  environment       = local.environment
  region            = var.region
  github_repository = var.github_repository
  state             = { bucket = "mlplatform-${data.aws_caller_identity.current.account_id}-state", key = "dev/terraform.tfstate" }
  verifying_key_arn = module.data.secrets["mlplatform-verifying"]
  bucket_arns       = module.data.bucket_arns
  kms_key_arn       = module.data.kms_key_arn
  secret_arns       = concat(values(module.data.secrets), [module.data.database.master_secret_arn])
}

module "observability" {
  source = "../../modules/observability"

  name                     = local.name
  environment              = local.environment
  region                   = var.region
  vpc_id                   = module.network.vpc_id
  nat_gateway_ids          = module.network.nat_gateway_ids
  database_id              = module.data.database.id
  database_max_connections = 330 # db.t4g.medium allows about 410
  redis_nodes              = module.data.redis.nodes
  alarm_emails             = var.alarm_emails
  monthly_budget_usd       = var.monthly_budget_usd
  flow_log_days            = 30
}
