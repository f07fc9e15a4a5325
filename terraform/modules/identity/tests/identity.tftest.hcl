mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "111122223333" }
  }
}

variables {
  cluster_name      = "mlplatform-test"
  environment       = "test"
  region            = "us-east-1"
  bucket_arns       = { artifacts = "arn:aws:s3:::artifacts", offline = "arn:aws:s3:::offline" }
  kms_key_arn       = "arn:aws:kms:us-east-1:111122223333:key/1"
  secret_arns       = ["arn:aws:secretsmanager:us-east-1:111122223333:secret:one"]
  verifying_key_arn = "arn:aws:secretsmanager:us-east-1:111122223333:secret:verifying"
  state             = { bucket = "state", key = "test/terraform.tfstate" }
  github_repository = "example/platform"
}

run "a_workflow_is_trusted_in_its_own_environment_only" {
  command = plan

  assert {
    condition = (
      jsondecode(aws_iam_role.delivery["test-images"].assume_role_policy).Statement[0].Condition.StringEquals["token.actions.githubusercontent.com:sub"]
      == "repo:example/platform:environment:test-images"
    )
    error_message = "The subject must name the repository and the environment exactly."
  }
  assert {
    condition     = length(aws_iam_role.delivery) == 3
    error_message = "There is one role for pushing, one for deploying, one for comparing."
  }
}

run "without_a_repository_no_workflow_is_trusted" {
  command = plan
  variables {
    github_repository = ""
  }

  assert {
    condition     = length(aws_iam_role.delivery) == 0 && length(aws_eks_access_entry.delivery) == 0
    error_message = "Nobody was named."
  }
}

run "a_pattern_of_repositories_is_refused" {
  command = plan
  variables {
    github_repository = "example/*"
  }
  expect_failures = [var.github_repository]
}

run "an_account_is_bound_to_its_namespace_and_name" {
  command = plan

  assert {
    condition = alltrue([
      for role, expected in { features = "mlplatform-features", external-secrets = "external-secrets" } :
      jsondecode(aws_iam_role.this[role].assume_role_policy).Statement[0].Condition.StringEquals["aws:RequestTag/kubernetes-service-account"] == expected
    ])
    error_message = "Another account could take the role."
  }
}

run "an_account_writes_under_its_prefixes_only" {
  command = plan

  assert {
    condition = [
      for statement in jsondecode(aws_iam_role_policy.platform["monitor"].policy).Statement :
      statement.Resource if statement.Sid == "Write"
    ] == [["arn:aws:s3:::offline/monitoring/*"]]
    error_message = "The monitor writes reports and nothing else."
  }
}

run "all_secrets_of_the_account_are_refused" {
  command = plan
  variables {
    secret_arns = ["arn:aws:secretsmanager:us-east-1:111122223333:secret:*"]
  }
  expect_failures = [var.secret_arns]
}
