//! An S3 that nobody here wrote: moto, which verifies signatures and policies once its users exist.
//!
//! `tests/parts/get.sh moto` fetches it; nothing here does. A small program of Python runs it, makes a bucket, a user
//! who may only put objects below a prefix, and one who may read, and lists objects when asked.

use std::{io, path::Path, process::Stdio, time::Duration};

use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use crate::real::{parts, parts_are_required};

/// It imports much of boto: several seconds on a loaded machine.
const ANSWER_WITHIN: Duration = Duration::from_secs(50);

const PROGRAM: &str = r#"
import json, logging, os, sys
# One bucket, a parameter, a secret, and for each of three users: the user, the policy, the key.
os.environ["INITIAL_NO_AUTH_ACTION_COUNT"] = "12"
bucket, prefix, region = sys.argv[1:4]
logging.disable(logging.CRITICAL)
import boto3
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
endpoint = f"http://{host}:{port}"
def client(service, key="setup", secret="setup"):
    return boto3.client(service, region_name=region, endpoint_url=endpoint, aws_access_key_id=key, aws_secret_access_key=secret)
client("s3").create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": region})
iam = client("iam")
def user(name, action, resource):
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": action, "Resource": resource}]}
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return key["AccessKeyId"], key["SecretAccessKey"]
writer = user("writer", "s3:PutObject", f"arn:aws:s3:::{bucket}/{prefix}/*")
reading = user("reader", ["s3:ListBucket", "s3:GetObject"], "*")
reader = client("s3", *reading)
shelf = {"parameter": "/telemetry/key", "parameter_value": "p-" + writer[0], "secret_member": "token", "secret_value": "s-" + writer[0]}
client("ssm").put_parameter(Name=shelf["parameter"], Value=shelf["parameter_value"], Type="SecureString")
kept = json.dumps({shelf["secret_member"]: shelf["secret_value"]})
shelf["secret_arn"] = client("secretsmanager").create_secret(Name="telemetry/token", SecretString=kept)["ARN"]
shelf["access_key_id"], shelf["secret_access_key"] = user("holder", ["ssm:GetParameter", "secretsmanager:GetSecretValue"], "*")
print(json.dumps({"endpoint": endpoint, "key": writer[0], "secret": writer[1], "reader": reading, "shelf": shelf}), flush=True)
for _ in sys.stdin:
    found = []
    for item in reader.list_objects_v2(Bucket=bucket).get("Contents", []):
        got = reader.get_object(Bucket=bucket, Key=item["Key"])
        found.append({"key": item["Key"], "body": list(got["Body"].read()), "encoding": got.get("ContentEncoding", ""), "kind": got["ContentType"]})
    print(json.dumps(found), flush=True)
"#;

/// Why moto is not there.
#[derive(Debug, thiserror::Error)]
pub enum MotoError {
    /// It is not installed, and must be.
    #[error("moto is not installed, and OUTLAST_REQUIRE_PARTS=1; run tests/parts/get.sh moto")]
    Missing,
    /// It could not be started or has ended.
    #[error("moto: {0}")]
    Io(#[from] io::Error),
    /// It did not answer, or not as expected.
    #[error("moto did not answer: {0}")]
    Silent(String),
}

#[derive(Deserialize)]
struct Ready {
    endpoint: String,
    key: String,
    secret: String,
    reader: (String, String),
    shelf: Shelf,
}

/// Values that are kept in its stores, and a user who may read them.
#[derive(Debug, Deserialize)]
pub struct Shelf {
    /// Name of a parameter.
    pub parameter: String,
    /// Its value.
    pub parameter_value: String,
    /// ARN of a secret, a JSON object.
    pub secret_arn: String,
    /// The name of a member of it.
    pub secret_member: String,
    /// The value of that.
    pub secret_value: String,
    /// `AWS_ACCESS_KEY_ID` of a user who may read both.
    pub access_key_id: String,
    /// `AWS_SECRET_ACCESS_KEY` of that user.
    pub secret_access_key: String,
}

/// An object as S3 gives it back.
#[derive(Debug, Deserialize)]
pub struct Stored {
    /// Its key.
    pub key: String,
    /// What it holds, as stored.
    pub body: Vec<u8>,
    /// `Content-Encoding`
    pub encoding: String,
    /// `Content-Type`
    pub kind: String,
}

/// A running moto with one bucket; it is killed when this is dropped.
pub struct Moto {
    /// What `AWS_ENDPOINT_URL_S3` is to be.
    pub endpoint: String,
    /// `AWS_ACCESS_KEY_ID` of a user who may only put objects below the prefix.
    pub access_key_id: String,
    /// `AWS_SECRET_ACCESS_KEY` of that user.
    pub secret_access_key: String,
    /// The keys of a user who may list the bucket and get objects.
    pub reader: (String, String),
    /// What else it keeps.
    pub shelf: Shelf,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Moto {
    /// Starts it with `bucket` in `region`, or says on standard error that the test is skipped and gives nothing.
    ///
    /// # Errors
    /// [`MotoError::Missing`] where `OUTLAST_REQUIRE_PARTS=1`; the others if it is there and fails.
    pub async fn start_or_skip(
        test: &str,
        bucket: &str,
        prefix: &str,
        region: &str,
    ) -> Result<Option<Self>, MotoError> {
        let environment = parts().join("venv-moto");
        if environment.join(".done").exists() {
            let python = environment.join("bin/python3");
            return Self::start(&python, [bucket, prefix, region]).await.map(Some);
        }
        if parts_are_required() {
            return Err(MotoError::Missing);
        }
        eprintln!("{test}: SKIPPED, moto is not installed (tests/parts/get.sh moto)");
        Ok(None)
    }

    async fn start(python: &Path, arguments: [&str; 3]) -> Result<Self, MotoError> {
        let mut child = Command::new(python)
            .args(["-c", PROGRAM])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(MotoError::Silent("no pipes".to_owned()));
        };
        let mut output = BufReader::new(output).lines();
        let Ready { endpoint, key, secret, reader, shelf } = next(&mut output).await?;
        Ok(Self {
            endpoint,
            access_key_id: key,
            secret_access_key: secret,
            reader,
            shelf,
            input,
            output,
            _child: child,
        })
    }

    /// Everything in the bucket.
    ///
    /// # Errors
    /// [`MotoError`].
    pub async fn objects(&mut self) -> Result<Vec<Stored>, MotoError> {
        self.input.write_all(b"list\n").await?;
        next(&mut self.output).await
    }
}

/// The next line that is JSON; what the server says besides is passed over.
async fn next<T: for<'de> Deserialize<'de>>(
    output: &mut Lines<BufReader<ChildStdout>>,
) -> Result<T, MotoError> {
    let line = async {
        loop {
            let line = output.next_line().await?.ok_or_else(|| MotoError::Silent("it ended".to_owned()))?;
            if let Ok(value) = serde_json::from_str(&line) {
                return Ok(value);
            }
        }
    };
    timeout(ANSWER_WITHIN, line).await.map_err(|_| MotoError::Silent("for too long".to_owned()))?
}
