# State of this environment; the commands add bucket and region. The lock is an object beside it:
# whoever comes second is told who works.
key          = "dev/terraform.tfstate"
encrypt      = true
use_lockfile = true
