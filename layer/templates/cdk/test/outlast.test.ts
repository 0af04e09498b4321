import { App, Stack } from 'aws-cdk-lib';
import { Match, Template } from 'aws-cdk-lib/assertions';
import * as lambda from 'aws-cdk-lib/aws-lambda';
import * as logs from 'aws-cdk-lib/aws-logs';
import * as s3 from 'aws-cdk-lib/aws-s3';
import * as assert from 'node:assert/strict';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Outlast, OutlastAspect } from '../lib/outlast';

const ARN = 'arn:aws:lambda:eu-central-1:123456789012:layer:outlast-x86_64:7';
const ENDPOINT = 'https://otlp.example.com:4318';

function fn(stack: Stack, id: string, architecture = lambda.Architecture.X86_64) {
  return new lambda.Function(stack, id, {
    runtime: lambda.Runtime.PYTHON_3_13,
    handler: 'index.handler',
    code: lambda.Code.fromInline('def handler(event, context): pass'),
    architecture,
  });
}

test('a function gets layer, settings and alarms, and no permission', () => {
  const stack = new Stack(new App(), 'Orders');
  const outlast = new Outlast(stack, 'Telemetry', {
    function: fn(stack, 'Fn'),
    endpoint: ENDPOINT,
    layerArns: { x86_64: ARN },
    settings: { OUTLAST_PROTOCOL: 'otlp' },
  });
  const template = Template.fromStack(stack);
  template.hasResourceProperties('AWS::Lambda::Function', {
    Layers: [ARN],
    Environment: { Variables: { OUTLAST_ENDPOINT: ENDPOINT, OUTLAST_PROTOCOL: 'otlp', OUTLAST_FALLBACK: Match.absent() } },
  });
  assert.equal(outlast.alarms.length, 2);
  template.resourceCountIs('AWS::CloudWatch::Alarm', 2);
  template.hasResourceProperties('AWS::Logs::MetricFilter', { FilterPattern: Match.stringLikeRegexp('dropped') });
  const policies = Object.values(template.findResources('AWS::IAM::Policy'));
  assert.ok(!JSON.stringify(policies).includes('s3:'), 'nothing is permitted that is not needed');
});

test('a fallback gets its bucket and the permission to write below one prefix', () => {
  const stack = new Stack(new App(), 'Orders');
  const fallback = new s3.Bucket(stack, 'Bucket');
  new Outlast(stack, 'Telemetry', { function: fn(stack, 'Fn'), endpoint: ENDPOINT, layerArns: { x86_64: ARN }, fallback, alarms: false });
  const template = Template.fromStack(stack);
  template.resourceCountIs('AWS::CloudWatch::Alarm', 0);
  const [policy] = Object.values(template.findResources('AWS::IAM::Policy'));
  const statements = policy.Properties.PolicyDocument.Statement;
  assert.equal(statements.length, 1);
  assert.equal(statements[0].Action, 's3:PutObject');
  assert.equal(statements[0].Effect, 'Allow');
  assert.deepEqual(statements[0].Resource['Fn::Join'][1].slice(1), ['/outlast/*']);
});

test('a secret gets the permission to read that one', () => {
  const statements = (secretArn: string) => {
    const stack = new Stack(new App(), 'Orders');
    new Outlast(stack, 'Telemetry', { function: fn(stack, 'Fn'), endpoint: ENDPOINT, layerArns: { x86_64: ARN }, secretArn });
    const [policy] = Object.values(Template.fromStack(stack).findResources('AWS::IAM::Policy'));
    return policy.Properties.PolicyDocument.Statement;
  };
  const parameter = 'arn:aws:ssm:eu-central-1:123456789012:parameter/prod/otlp-key';
  assert.deepEqual(statements(parameter), [{ Action: 'ssm:GetParameter', Effect: 'Allow', Resource: parameter }]);
  const secret = 'arn:aws:secretsmanager:eu-central-1:123456789012:secret:otlp-AbCdEf';
  assert.deepEqual(statements(secret), [{ Action: 'secretsmanager:GetSecretValue', Effect: 'Allow', Resource: secret }]);
});

test('alarms leave the log group of a function and its retention as they are, and make no function to set it', () => {
  const stack = new Stack(new App(), 'Orders');
  const code = { runtime: lambda.Runtime.PYTHON_3_13, handler: 'index.handler', code: lambda.Code.fromInline('pass') };
  const layerArns = { x86_64: ARN };
  const named = new lambda.Function(stack, 'Named', { ...code, logGroup: new logs.LogGroup(stack, 'Week', { retention: logs.RetentionDays.ONE_WEEK }) });
  new Outlast(named, 'Telemetry', { function: named, endpoint: ENDPOINT, layerArns });
  new Outlast(stack, 'Telemetry', { function: fn(stack, 'Without'), endpoint: ENDPOINT, layerArns });
  const template = Template.fromStack(stack);
  template.resourceCountIs('Custom::LogRetention', 0);
  template.resourceCountIs('AWS::Lambda::Function', 2);
  const groups = Object.entries(template.findResources('AWS::Logs::LogGroup'));
  assert.deepEqual(groups.map(([, group]) => group.Properties?.RetentionInDays).sort(), [7, undefined]);
  const [own] = groups.find(([, group]) => group.Properties?.RetentionInDays === undefined)!;
  const [without] = Object.entries(template.findResources('AWS::Lambda::Function')).filter(([id]) => id.startsWith('Without'));
  assert.deepEqual(without[1].Properties.LoggingConfig.LogGroup, { Ref: own });
  const watched = Object.values(template.findResources('AWS::Logs::MetricFilter')).map((filter) => filter.Properties.LogGroupName.Ref);
  assert.deepEqual([...new Set(watched)].sort(), groups.map(([id]) => id).sort());
});

test('a function with a construct of its own gets nothing from the aspect, and no second construct', () => {
  const app = new App();
  const stack = new Stack(app, 'Orders');
  const orders = fn(stack, 'Fn');
  const props = { endpoint: ENDPOINT, layerArns: { x86_64: ARN } };
  new Outlast(stack, 'Telemetry', { function: orders, ...props });
  OutlastAspect.addTo(app, { ...props, endpoint: 'https://other.example.com' });
  const template = Template.fromStack(stack);
  template.hasResourceProperties('AWS::Lambda::Function', { Layers: [ARN], Environment: { Variables: { OUTLAST_ENDPOINT: ENDPOINT } } });
  template.resourceCountIs('AWS::CloudWatch::Alarm', 2);
  assert.throws(() => new Outlast(stack, 'Again', { function: orders, ...props }), /has the layer already/);
});

test('an aspect gives every function of an app the layer of its architecture, once, and one layer to a stack', () => {
  const app = new App();
  const directory = mkdtempSync(join(tmpdir(), 'outlast-'));
  const zips = { x86_64: join(directory, 'x.zip'), arm64: join(directory, 'a.zip') };
  writeFileSync(zips.x86_64, 'x86');
  writeFileSync(zips.arm64, 'arm');
  const [first, second] = [new Stack(app, 'First'), new Stack(app, 'Second')];
  fn(first, 'A');
  fn(first, 'B');
  fn(first, 'C', lambda.Architecture.ARM_64);
  fn(first, 'Not');
  fn(second, 'D');
  OutlastAspect.addTo(app, { endpoint: ENDPOINT, zips, except: (found) => found.node.id === 'Not' });
  app.synth();
  const of = (stack: Stack) => Template.fromStack(stack);
  const functions = Object.entries(of(first).findResources('AWS::Lambda::Function'));
  const layers = (name: string) => functions.find(([id]) => id.startsWith(name))![1].Properties.Layers;
  assert.deepEqual(layers('A'), layers('B'));
  assert.equal(layers('A').length, 1);
  assert.notDeepEqual(layers('A'), layers('C'));
  assert.equal(layers('Not'), undefined);
  of(first).resourceCountIs('AWS::Lambda::LayerVersion', 2);
  of(first).resourceCountIs('AWS::CloudWatch::Alarm', 6);
  of(second).resourceCountIs('AWS::Lambda::LayerVersion', 1);
});

test('an architecture without a layer fails at synthesis, not in the account', () => {
  const stack = new Stack(new App(), 'Orders');
  const arm = fn(stack, 'Fn', lambda.Architecture.ARM_64);
  assert.throws(() => new Outlast(stack, 'T', { function: arm, endpoint: ENDPOINT, layerArns: { x86_64: ARN } }), /arm64, for which no layer/);
});
