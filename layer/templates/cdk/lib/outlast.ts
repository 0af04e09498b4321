import { Aspects, Duration, IAspect, Stack, Token } from 'aws-cdk-lib';
import * as cloudwatch from 'aws-cdk-lib/aws-cloudwatch';
import * as iam from 'aws-cdk-lib/aws-iam';
import * as lambda from 'aws-cdk-lib/aws-lambda';
import * as logs from 'aws-cdk-lib/aws-logs';
import * as s3 from 'aws-cdk-lib/aws-s3';
import { Construct, IConstruct } from 'constructs';

/** What a function with the layer needs to know. */
export interface OutlastProps {
  /** Base URL of the backend, for OTLP without `/v1/logs`. */
  readonly endpoint: string;
  /** The zip that `layer/package.sh` made, by architecture. Each stack that needs one gets a layer version of its own. Either this or `layerArns`. */
  readonly zips?: { readonly x86_64?: string; readonly arm64?: string };
  /** ARNs, with their version, of layers that were published before, by architecture. Either this or `zips`. */
  readonly layerArns?: { readonly x86_64?: string; readonly arm64?: string };
  /** Headers of each request, usually the credentials, such as `authorization=Bearer%20TOKEN`. */
  readonly headers?: string;
  /** A bucket for what the backend does not take before the environment ends. */
  readonly fallback?: s3.IBucket;
  /** ARN of the secret or the parameter that `headers` refers to (`secretsmanager:…` or `ssm:…`). */
  readonly secretArn?: string;
  /** Further settings by name (docs/configuration.md). */
  readonly settings?: Readonly<Record<string, string>>;
  /**
   * Whether functions get alarms on what the extension says. They need the function's log group: a function without one (`logGroup` or `logRetention`
   * of CDK, or `loggingConfig`) gets one of its own, kept for ever, as Lambda's own would be. Nothing is done to one that it has.
   * @default true
   */
  readonly alarms?: boolean;
  /** What alarms do. */
  readonly alarmActions?: cloudwatch.IAlarmAction[];
}

/** What is alarmed on: lines of the extension, as CloudWatch Logs finds them. */
export const ALARMS = {
  /** Records that are lost: for want of room, refused for good, or damaged. */
  Drops: {
    pattern:
      '%^outlast [EW].* dropped|^outlast [EW].* given up|^outlast [EW].* rejected |^outlast [EW].* are damaged |^outlast [EW].* not telemetry%',
    period: Duration.minutes(1),
    description: 'The extension dropped telemetry; its lines on stderr say how much and why',
  },
  /** A backend that takes nothing: the data waits, and this is the time to look. */
  Away: {
    pattern: '%^outlast WARN backend: away |^outlast WARN backend: answers %',
    period: Duration.minutes(5),
    description: "The backend does not take telemetry; it waits on the environments' disks",
  },
};

/** Functions that have the layer: nobody gets it twice. */
const having = new WeakSet<lambda.Function>();

/** Gives one function the layer, its settings, the permissions for its fallback and its secret if it has them, and alarms. */
export class Outlast extends Construct {
  /** The alarms, if there are any. */
  readonly alarms: cloudwatch.Alarm[] = [];

  constructor(scope: Construct, id: string, props: OutlastProps & { readonly function: lambda.Function }) {
    super(scope, id);
    if ((props.zips === undefined) === (props.layerArns === undefined)) {
      throw new Error('outlast: either zips or layerArns');
    }
    const fn = props.function;
    if (having.has(fn)) {
      throw new Error(`outlast: ${fn.node.path} has the layer already`);
    }
    having.add(fn);
    fn.addLayers(layerFor(fn, props));
    const settings = { OUTLAST_ENDPOINT: props.endpoint, ...(props.headers ? { OUTLAST_HEADERS: props.headers } : {}), ...props.settings };
    for (const [name, value] of Object.entries(settings)) {
      fn.addEnvironment(name, value);
    }
    if (props.fallback) {
      fn.addEnvironment('OUTLAST_FALLBACK', `s3://${props.fallback.bucketName}/outlast`);
      // All that a fallback needs: no reading, no other prefix. A bucket with a key of its own wants that too.
      permit(fn, ['s3:PutObject'], props.fallback.arnForObjects('outlast/*'));
      props.fallback.encryptionKey?.grant(fn, 'kms:GenerateDataKey');
    }
    if (props.secretArn) {
      permit(fn, readingOf(props.secretArn), props.secretArn);
    }
    if (props.alarms ?? true) {
      this.watch(this.logGroupOf(fn), props.alarmActions ?? []);
    }
  }

  /** `Function.logGroup` of CDK makes a function that sets the retention of the group to "never expire", unless the group is known to it. So it is asked only then. */
  private logGroupOf(fn: lambda.Function): logs.ILogGroup {
    const made = fn.node.defaultChild as lambda.CfnFunction;
    const named = (made.loggingConfig as lambda.CfnFunction.LoggingConfigProperty | undefined)?.logGroup;
    if (fn.node.tryFindChild('LogRetention') || fn.node.tryFindChild('LogGroup')) {
      return fn.logGroup;
    }
    if (named) {
      return logs.LogGroup.fromLogGroupName(this, 'Logs', named as string);
    }
    const own = new logs.LogGroup(this, 'Logs', { retention: logs.RetentionDays.INFINITE });
    made.addPropertyOverride('LoggingConfig.LogGroup', own.logGroupName);
    return own;
  }

  private watch(logGroup: logs.ILogGroup, actions: cloudwatch.IAlarmAction[]) {
    for (const [name, of] of Object.entries(ALARMS)) {
      const filter = new logs.MetricFilter(this, `${name}Filter`, {
        logGroup,
        filterPattern: logs.FilterPattern.literal(of.pattern),
        metricNamespace: 'outlast/alarms',
        metricName: `${this.node.path}/${name}`.replaceAll('/', '-'),
      });
      const alarm = new cloudwatch.Alarm(this, `${name}Alarm`, {
        alarmDescription: of.description,
        metric: filter.metric({ statistic: 'sum', period: of.period }),
        threshold: 1,
        evaluationPeriods: 1,
        comparisonOperator: cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
        treatMissingData: cloudwatch.TreatMissingData.NOT_BREACHING,
      });
      alarm.addAlarmAction(...actions);
      this.alarms.push(alarm);
    }
  }
}

/**
 * Gives every function of an app, a stack or any other part of the tree the layer: `Aspects.of(app).add(new OutlastAspect({ … }))`.
 * One that has the layer already, from an `Outlast` of its own, is left as it is. Functions that CDK itself makes (custom resources, providers) are no `lambda.Function` with a runtime to speak of or are named in `except`.
 */
export class OutlastAspect implements IAspect {
  constructor(private readonly props: OutlastProps & { readonly except?: (fn: lambda.Function) => boolean }) {}

  visit(node: IConstruct) {
    if (node instanceof lambda.Function && !having.has(node) && !isImage(node) && !this.props.except?.(node)) {
      new Outlast(node, 'Outlast', { ...this.props, function: node });
    }
  }

  /** The same in one call. */
  static addTo(scope: IConstruct, props: OutlastProps & { readonly except?: (fn: lambda.Function) => boolean }) {
    Aspects.of(scope).add(new OutlastAspect(props));
  }
}

function permit(fn: lambda.Function, actions: string[], resource: string) {
  fn.addToRolePolicy(new iam.PolicyStatement({ actions, resources: [resource] }));
}

/** What reading a secret needs, by the service that its ARN names. Of an ARN that is not known yet only one of the two can apply. */
function readingOf(arn: string) {
  const services: Record<string, string[]> = { secretsmanager: ['secretsmanager:GetSecretValue'], ssm: ['ssm:GetParameter'] };
  const found = services[Token.isUnresolved(arn) ? '' : arn.split(':')[2]];
  return found ?? Object.values(services).flat();
}

/** A container image takes no layers: it has the extension inside (../container). */
function isImage(fn: lambda.Function) {
  return fn.runtime.toString() === lambda.Runtime.FROM_IMAGE.toString();
}

function layerFor(fn: lambda.Function, props: OutlastProps): lambda.ILayerVersion {
  const architecture = fn.architecture.name === 'arm64' ? 'arm64' : 'x86_64';
  const stack = Stack.of(fn);
  const id = `OutlastLayer-${architecture}`;
  const made = stack.node.tryFindChild(id);
  if (made) {
    return made as lambda.LayerVersion;
  }
  const arn = props.layerArns?.[architecture];
  if (arn) {
    return lambda.LayerVersion.fromLayerVersionArn(stack, id, arn);
  }
  const zip = props.zips?.[architecture];
  if (!zip) {
    throw new Error(`outlast: ${fn.node.path} runs on ${architecture}, for which no layer is given`);
  }
  return new lambda.LayerVersion(stack, id, {
    code: lambda.Code.fromAsset(zip),
    compatibleArchitectures: [fn.architecture],
    description: 'Keeps telemetry through any backend outage',
    license: 'Apache-2.0',
  });
}
