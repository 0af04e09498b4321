# Run by `terraform test` (1.7 or newer), with no account: what the module refuses, and what it permits.

mock_provider "aws" {}

variables {
  endpoint  = "https://otlp.example.com:4318"
  layer_arn = "arn:aws:lambda:eu-central-1:123456789012:layer:outlast-x86_64:7"
}

run "needs_no_permission" {
  command = plan

  assert {
    condition     = output.policy_json == null && length(data.aws_iam_policy_document.needed) == 0
    error_message = "Nothing is permitted that is not needed."
  }
}

run "permits_one_prefix_and_one_secret" {
  command = plan

  variables {
    fallback_bucket = "rescued"
    secret_arn      = "arn:aws:ssm:eu-central-1:123456789012:parameter/prod/otlp-key"
  }

  assert {
    condition = jsonencode([for statement in data.aws_iam_policy_document.needed[0].statement : sort(statement.actions)]) == jsonencode([
      ["s3:PutObject"], ["secretsmanager:GetSecretValue", "ssm:GetParameter"]
    ])
    error_message = "The smallest statements, and no others."
  }

  assert {
    condition     = endswith(one(data.aws_iam_policy_document.needed[0].statement[0].resources), ":s3:::rescued/outlast/*")
    error_message = "Only below the prefix."
  }
}

run "refuses_a_zip_and_an_arn" {
  command = plan

  variables {
    layer_zip = "main.tf"
  }

  expect_failures = [output.layer_arn]
}

run "refuses_neither_a_zip_nor_an_arn" {
  command = plan

  variables {
    layer_arn = null
  }

  expect_failures = [output.layer_arn]
}
