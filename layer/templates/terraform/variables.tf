variable "name" {
  description = "Name of the layer, and of what is made beside it"
  type        = string
  default     = "outlast"
}

variable "architecture" {
  description = "What the functions run on, and the layer was built for"
  type        = string
  default     = "x86_64"
  validation {
    condition     = contains(["x86_64", "arm64"], var.architecture)
    error_message = "The architecture is x86_64 or arm64."
  }
}

variable "layer_zip" {
  description = "The zip that layer/package.sh made. Either this or layer_arn"
  type        = string
  default     = null
}

variable "layer_arn" {
  description = "ARN, with its version, of a layer that was published before. Either this or layer_zip"
  type        = string
  default     = null
}

variable "endpoint" {
  description = "Base URL of the backend, for OTLP without /v1/logs"
  type        = string
}

variable "headers" {
  description = "Headers of each request, usually the credentials, such as authorization=Bearer%20TOKEN"
  type        = string
  default     = ""
  sensitive   = true
}

variable "settings" {
  description = "Further settings by name (docs/configuration.md), such as { OUTLAST_PROTOCOL = \"loki\" }"
  type        = map(string)
  default     = {}
}

variable "fallback_bucket" {
  description = "A bucket for what the backend does not take before the environment ends; none if null"
  type        = string
  default     = null
}

variable "secret_arn" {
  description = "ARN of the secret or the parameter that headers refers to (secretsmanager:… or ssm:…); none if null"
  type        = string
  default     = null
}

variable "function_log_groups" {
  description = "Log groups of the functions that have the layer, by a name of your choice: each gets filters and alarms"
  type        = map(string)
  default     = {}
}

variable "alarm_actions" {
  description = "ARNs that alarms go to, such as that of an SNS topic"
  type        = list(string)
  default     = []
}
