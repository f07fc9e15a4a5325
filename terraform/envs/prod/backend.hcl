# State of this environment. The lock is an object beside it: whoever comes second is told who works.
key          = "prod/terraform.tfstate"
region       = "us-east-1"
encrypt      = true
use_lockfile = true
