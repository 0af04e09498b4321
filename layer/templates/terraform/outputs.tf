output "layer_arn" {
  description = "For the functions' `layers`"
  value       = local.layer_arn

  precondition {
    condition     = (var.layer_zip == null) != (var.layer_arn == null)
    error_message = "Either layer_zip or layer_arn: one of the two."
  }
}

output "environment" {
  description = "For the functions' `environment`: merge it with their own"
  value       = merge({ OUTLAST_ENDPOINT = var.endpoint }, local.headers, local.fallback, var.settings)
  sensitive   = true
}

output "policy_json" {
  description = "What the functions' role needs for the fallback and the secret; null if there is neither, for then it needs nothing"
  value       = one(data.aws_iam_policy_document.needed[*].json)
}

output "alarm_arns" {
  description = "The alarms, by function and subject"
  value       = { for name, alarm in aws_cloudwatch_metric_alarm.watched : name => alarm.arn }
}
