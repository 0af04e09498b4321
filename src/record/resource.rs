//! What the telemetry is about: the function and its environment, as OpenTelemetry resource attributes.
//!
//! Names are those of the semantic conventions for AWS Lambda and `FaaS` resources.

use std::borrow::Cow;

use super::value::{Field, Value};

/// Lambda's megabyte (`AWS_LAMBDA_FUNCTION_MEMORY_SIZE`) in bytes.
const MEGABYTE_BYTES: u64 = 1 << 20;

/// What is known about the function. Everything may be missing; what is missing is left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResourceInputs<'a> {
    /// `AWS_LAMBDA_FUNCTION_NAME`, or the reply to registering.
    pub function_name: Option<&'a str>,
    /// `AWS_LAMBDA_FUNCTION_VERSION`, or the reply to registering.
    pub function_version: Option<&'a str>,
    /// `AWS_REGION`
    pub region: Option<&'a str>,
    /// From the reply to registering; else taken from the ARN.
    pub account_id: Option<&'a str>,
    /// `AWS_LAMBDA_FUNCTION_MEMORY_SIZE`, in Lambda's megabytes.
    pub memory_mb: Option<u64>,
    /// `invokedFunctionArn` of an INVOKE event; any of its qualifiers.
    pub invoked_function_arn: Option<&'a str>,
    /// `instanceId` of `platform.initStart`: the name of the log stream.
    pub instance_id: Option<&'a str>,
    /// `OTEL_SERVICE_NAME`
    pub otel_service_name: Option<&'a str>,
    /// `OTEL_RESOURCE_ATTRIBUTES`, decoded, names unique.
    pub user_attributes: &'a [(String, String)],
}

/// The attributes of the function, in a fixed order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resource {
    /// Names are unique.
    pub attributes: Vec<Field<'static>>,
}

impl Resource {
    /// Builds the resource.
    ///
    /// What the user says in `OTEL_SERVICE_NAME` comes before `OTEL_RESOURCE_ATTRIBUTES`, and that before what
    /// was detected (OpenTelemetry specification, "Specifying resource information via an environment variable").
    pub fn build(inputs: &ResourceInputs<'_>) -> Self {
        let mut resource = Self::default();
        let arn = inputs.invoked_function_arn.and_then(Arn::parse);
        let version = given(inputs.function_version).or(arn.and_then(|arn| arn.qualifier));
        let name = given(inputs.function_name).or(arn.map(|arn| arn.function));
        resource.set("service.name", given(inputs.otel_service_name).or(name));
        resource.set("faas.name", name);
        resource.set("faas.version", version);
        resource.set("faas.instance", inputs.instance_id);
        if let Some(bytes) =
            inputs.memory_mb.and_then(|size| i64::try_from(size.checked_mul(MEGABYTE_BYTES)?).ok())
        {
            resource.attributes.push(("faas.max_memory".into(), Value::Int(bytes)));
        }
        resource.set("cloud.provider", Some("aws"));
        resource.set("cloud.platform", Some("aws_lambda"));
        let region = given(inputs.region).or(arn.map(|arn| arn.region));
        let account = given(inputs.account_id).or(arn.map(|arn| arn.account));
        resource.set("cloud.region", region);
        resource.set("cloud.account.id", account);
        let partition = arn.map(|arn| arn.partition).or(region.map(partition_of));
        if let (Some(partition), Some(region), Some(account), Some(name)) = (partition, region, account, name)
        {
            // An alias may move to another version; the version that runs is what the conventions ask for.
            let qualifier = version.map(|version| format!(":{version}")).unwrap_or_default();
            let id = format!("arn:{partition}:lambda:{region}:{account}:function:{name}{qualifier}");
            resource.set("cloud.resource_id", Some(&id));
        }
        for (key, value) in inputs.user_attributes {
            if key == "service.name" && given(inputs.otel_service_name).is_some() {
                continue;
            }
            match resource.attributes.iter_mut().find(|(name, _)| name == key) {
                Some((_, old)) => *old = Value::Str(value.clone().into()),
                None => resource.attributes.push((key.clone().into(), Value::Str(value.clone().into()))),
            }
        }
        resource
    }

    fn set(&mut self, name: &'static str, value: Option<&str>) {
        if let Some(value) = given(value) {
            self.attributes.push((name.into(), Value::Str(Cow::Owned(value.to_owned()))));
        }
    }

    /// The attribute `name`.
    pub fn get(&self, name: &str) -> Option<&Value<'static>> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }
}

/// An empty variable counts as unset (OpenTelemetry specification, "Environment variables").
fn given(value: Option<&str>) -> Option<&str> {
    value.filter(|value| !value.is_empty())
}

fn partition_of(region: &str) -> &'static str {
    if region.starts_with("cn-") {
        "aws-cn"
    } else if region.starts_with("us-gov-") {
        "aws-us-gov"
    } else {
        "aws"
    }
}

/// `arn:PARTITION:lambda:REGION:ACCOUNT:function:NAME[:QUALIFIER]`
#[derive(Clone, Copy)]
struct Arn<'a> {
    partition: &'a str,
    region: &'a str,
    account: &'a str,
    function: &'a str,
    qualifier: Option<&'a str>,
}

impl<'a> Arn<'a> {
    fn parse(arn: &'a str) -> Option<Self> {
        let mut parts = arn.split(':');
        let mut part = || parts.next();
        let ("arn", partition, "lambda", region, account, "function", function) =
            (part()?, part()?, part()?, part()?, part()?, part()?, part()?)
        else {
            return None;
        };
        Some(Self { partition, region, account, function, qualifier: part().filter(|text| !text.is_empty()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INPUTS: ResourceInputs<'_> = ResourceInputs {
        function_name: Some("f"),
        function_version: Some("7"),
        region: Some("eu-central-1"),
        account_id: Some("123456789012"),
        memory_mb: Some(256),
        invoked_function_arn: Some("arn:aws:lambda:eu-central-1:123456789012:function:f:live"),
        instance_id: Some("2026/10/08/f[7]22be"),
        otel_service_name: None,
        user_attributes: &[],
    };

    fn shown(inputs: &ResourceInputs<'_>) -> Vec<String> {
        let resource = Resource::build(inputs);
        let show = |(name, value): &Field<'_>| match value {
            Value::Str(text) => format!("{name}={text}"),
            Value::Int(number) => format!("{name}:{number}"),
            other => panic!("{other:?}"),
        };
        resource.attributes.iter().map(show).collect()
    }

    #[test]
    fn everything_known_is_said_in_the_conventions_names() {
        assert_eq!(
            shown(&INPUTS),
            [
                "service.name=f",
                "faas.name=f",
                "faas.version=7",
                "faas.instance=2026/10/08/f[7]22be",
                "faas.max_memory:268435456",
                "cloud.provider=aws",
                "cloud.platform=aws_lambda",
                "cloud.region=eu-central-1",
                "cloud.account.id=123456789012",
                "cloud.resource_id=arn:aws:lambda:eu-central-1:123456789012:function:f:7",
            ]
        );
    }

    #[test]
    fn what_is_missing_is_left_out_or_read_from_the_arn() {
        assert_eq!(shown(&ResourceInputs::default()), ["cloud.provider=aws", "cloud.platform=aws_lambda"]);
        let from_arn =
            ResourceInputs { invoked_function_arn: INPUTS.invoked_function_arn, ..Default::default() };
        assert!(shown(&from_arn).contains(&"cloud.account.id=123456789012".into()));
        assert!(shown(&from_arn).contains(&"faas.name=f".into()));
        let without_arn = ResourceInputs {
            invoked_function_arn: Some("nonsense"),
            region: Some("cn-north-1"),
            memory_mb: Some(u64::MAX),
            ..INPUTS
        };
        assert!(
            shown(&without_arn)
                .contains(&"cloud.resource_id=arn:aws-cn:lambda:cn-north-1:123456789012:function:f:7".into())
        );
        let empty = ResourceInputs { otel_service_name: Some(""), function_version: Some(""), ..INPUTS };
        assert_eq!(shown(&empty)[0], "service.name=f");
    }

    #[test]
    fn the_users_attributes_come_before_what_was_detected() {
        let said = [("cloud.region", "mine"), ("service.name", "theirs"), ("a", "b=,c=d")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        let user = ResourceInputs { user_attributes: &said, ..INPUTS };
        let attributes = shown(&user);
        for attribute in ["service.name=theirs", "cloud.region=mine", "a=b=,c=d"] {
            assert_eq!(
                attributes.iter().filter(|shown| *shown == attribute).count(),
                1,
                "{attribute} in {attributes:?}"
            );
        }
        let named = ResourceInputs { otel_service_name: Some("ours"), ..user };
        assert_eq!(shown(&named)[0], "service.name=ours");
    }
}
