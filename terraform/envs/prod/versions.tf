terraform {
  required_version = ">= 1.10, < 2.0"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "5.100.0"
    }
  }

  # The bucket's name has the account in it, so `make infra-plan` gives it; the rest is in backend.hcl.
  backend "s3" {}
}
