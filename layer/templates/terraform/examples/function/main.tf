# A function with the layer: layer/package.sh x86_64, then in this folder
#   python3 -m zipfile -c function.zip src/app.py
#   terraform init
#   terraform apply -var endpoint=https://…

terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.80"
    }
  }
}

variable "endpoint" {
  description = "Base URL of the backend"
  type        = string
}

variable "headers" {
  description = "Headers of each request, usually the credentials"
  type        = string
  default     = ""
  sensitive   = true
}

variable "fallback_bucket" {
  description = "A bucket for what the backend does not take before the environment ends; none if null"
  type        = string
  default     = null
}

variable "secret_arn" {
  description = "ARN of the secret or the parameter that headers refers to; none if null"
  type        = string
  default     = null
}

variable "function_zip" {
  description = "The function's code: src/app.py in a zip, made as above"
  type        = string
  default     = "function.zip"
}

module "outlast" {
  source = "../.."

  layer_zip           = "${path.module}/../../../../../target/layer/outlast-x86_64.zip"
  endpoint            = var.endpoint
  headers             = var.headers
  fallback_bucket     = var.fallback_bucket
  secret_arn          = var.secret_arn
  function_log_groups = { orders = aws_cloudwatch_log_group.orders.name }
}

resource "aws_cloudwatch_log_group" "orders" {
  name              = "/aws/lambda/orders"
  retention_in_days = 14
}

data "aws_iam_policy_document" "assume" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["lambda.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "logs" {
  statement {
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.orders.arn}:*"]
  }
}

resource "aws_iam_role" "orders" {
  name               = "orders"
  assume_role_policy = data.aws_iam_policy_document.assume.json
}

resource "aws_iam_role_policy" "logs" {
  name   = "logs"
  role   = aws_iam_role.orders.id
  policy = data.aws_iam_policy_document.logs.json
}

resource "aws_iam_role_policy" "telemetry" {
  count = var.fallback_bucket == null && var.secret_arn == null ? 0 : 1

  name   = "telemetry"
  role   = aws_iam_role.orders.id
  policy = module.outlast.policy_json
}

resource "aws_lambda_function" "orders" {
  function_name    = "orders"
  role             = aws_iam_role.orders.arn
  runtime          = "python3.13"
  architectures    = ["x86_64"]
  handler          = "app.handler"
  filename         = var.function_zip
  source_code_hash = filebase64sha256(var.function_zip)
  memory_size      = 256
  timeout          = 10
  layers           = [module.outlast.layer_arn]

  logging_config {
    log_format = "Text"
    log_group  = aws_cloudwatch_log_group.orders.name
  }

  environment {
    variables = module.outlast.environment
  }
}

output "alarms" {
  value = module.outlast.alarm_arns
}
