# The layer, the settings of functions that have it, and alarms on what it says. examples/function is a function with all of it.

locals {
  layer_arn = var.layer_arn != null ? var.layer_arn : one(aws_lambda_layer_version.outlast[*].arn)
  fallback  = var.fallback_bucket == null ? {} : { OUTLAST_FALLBACK = "s3://${var.fallback_bucket}/outlast" }
  headers   = var.headers == "" ? {} : { OUTLAST_HEADERS = var.headers }

  alarms = {
    # Records that are lost: for want of room, refused for good, or damaged.
    drops = {
      pattern     = "%^outlast [EW].* dropped|^outlast [EW].* given up|^outlast [EW].* rejected |^outlast [EW].* are damaged |^outlast [EW].* not telemetry%"
      period      = 60
      description = "The extension dropped telemetry; its lines on stderr say how much and why"
    }
    # A backend that takes nothing: the data waits, and this is the time to look.
    away = {
      pattern     = "%^outlast WARN backend: away |^outlast WARN backend: answers %"
      period      = 300
      description = "The backend does not take telemetry; it waits on the environments' disks"
    }
  }
  watched = merge([
    for function, log_group in var.function_log_groups : {
      for alarm, of in local.alarms : "${function}-${alarm}" => merge(of, { log_group = log_group })
    }
  ]...)
}

resource "aws_lambda_layer_version" "outlast" {
  count = var.layer_arn == null ? 1 : 0

  layer_name               = "${var.name}-${var.architecture}"
  description              = "Keeps telemetry through any backend outage"
  filename                 = var.layer_zip
  source_code_hash         = var.layer_zip == null ? null : filebase64sha256(var.layer_zip)
  compatible_architectures = [var.architecture]
  license_info             = "Apache-2.0"
  skip_destroy             = true
}

data "aws_partition" "current" {}

# The extension needs no permission, except for a bucket that it falls back to and for a secret that is kept elsewhere.
data "aws_iam_policy_document" "needed" {
  count = var.fallback_bucket == null && var.secret_arn == null ? 0 : 1

  dynamic "statement" {
    for_each = var.fallback_bucket[*]
    content {
      actions   = ["s3:PutObject"]
      resources = ["arn:${data.aws_partition.current.partition}:s3:::${statement.value}/outlast/*"]
    }
  }

  # Only one of the two actions is one of this ARN's service.
  dynamic "statement" {
    for_each = var.secret_arn[*]
    content {
      actions   = ["secretsmanager:GetSecretValue", "ssm:GetParameter"]
      resources = [statement.value]
    }
  }
}

resource "aws_cloudwatch_log_metric_filter" "watched" {
  for_each = local.watched

  name           = "${var.name}-${each.key}"
  log_group_name = each.value.log_group
  pattern        = each.value.pattern

  metric_transformation {
    namespace = "outlast/alarms"
    name      = "${var.name}-${each.key}"
    value     = "1"
  }
}

resource "aws_cloudwatch_metric_alarm" "watched" {
  for_each = local.watched

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.description
  namespace           = "outlast/alarms"
  metric_name         = "${var.name}-${each.key}"
  statistic           = "Sum"
  period              = each.value.period
  evaluation_periods  = 1
  threshold           = 1
  comparison_operator = "GreaterThanOrEqualToThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
}
