import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { parseAllDocuments } from 'yaml';
import * as z from 'zod';
import { render, runTool } from '../../charts/helm.ts';
import { parseConfig } from '../../config/parse.ts';
import { isS3Location, parseS3Location } from '../../registry/s3-location.ts';
import { weir } from '../support/weir-command.ts';
import { provide } from '../tools/cache.ts';
import { run } from '../tools/command.ts';
import { cases, flagsOf } from './cases.ts';
import { kubernetesSchemas, SCHEMA_NAMES } from './kubernetes-schemas.ts';

const manifest = z.looseObject({
  kind: z.string(),
  metadata: z.looseObject({ name: z.string(), namespace: z.string().optional() }),
});
const container = z.object({ image: z.string(), args: z.array(z.string()).optional() });
const pod = z.object({ containers: z.array(container) });
const withPod = z.object({ spec: z.union([z.object({ template: z.object({ spec: pod }) }), pod]) });
const configMap = z.object({ data: z.object({ 'config.yaml': z.string() }) });
let directory: string;
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'weir-chart-'));
});
after(() => rm(directory, { recursive: true, force: true }));

function manifestsIn(text: string): z.infer<typeof manifest>[] {
  return parseAllDocuments(text)
    .map((document) => {
      // Such as a key that a mapping has twice.
      assert.deepEqual(document.errors, []);
      return manifest.nullable().parse(document.toJS());
    })
    .filter((one) => one !== null);
}

/** What each container of weir is started with. */
function argumentsIn(text: string): readonly string[][] {
  return manifestsIn(text).flatMap((one) => {
    const spec = withPod.safeParse(one).data?.spec;
    if (spec === undefined) return [];
    const { containers } = 'template' in spec ? spec.template.spec : spec;
    return containers.flatMap(({ image, args }) => (/\bweir[:@]/.test(image) && args ? [args] : []));
  });
}

/** @throws Error with what is wrong. */
async function checkAgainstSchemas(text: string): Promise<string> {
  const file = join(directory, 'manifests.yaml');
  await writeFile(file, text);
  const schemas = join(await provide(kubernetesSchemas()), SCHEMA_NAMES);
  // The Prometheus operator's own kinds are not in Kubernetes' description.
  const skipped = 'PodMonitor,ServiceMonitor,PrometheusRule';
  return await runTool(
    'kubeconform',
    '-strict',
    '-summary',
    '-schema-location',
    schemas,
    '-skip',
    skipped,
    file,
  );
}

for (const [name, values] of cases)
  test(`the manifests are Kubernetes': ${name}`, async () => {
    const said = await checkAgainstSchemas(await render('mirrors', ...flagsOf(values)));
    assert.match(said, /Valid: \d{2}, Invalid: 0, Errors: 0/);
  });

test('a field that Kubernetes does not have is found', async () => {
  const text = await render('mirrors');
  await assert.rejects(checkAgainstSchemas(text.replace('hostNetwork:', 'hostNetwrok:')), /hostNetwrok/);
});

for (const [name, values] of cases)
  test(`the programs accept what the manifests tell them: ${name}`, async () => {
    const text = await render('mirrors', ...flagsOf(values));
    const manifests = manifestsIn(text);
    for (const one of manifests.filter(({ kind }) => kind === 'ConfigMap')) {
      if (one.metadata.name !== 'weir') continue;
      const { warnings } = parseConfig(configMap.parse(one).data['config.yaml']);
      // With the name of a door for every Pod, of whatever node.
      const doubted = name.endsWith('with every Pod rewritten') ? ['fallback'] : [];
      assert.deepEqual(
        warnings.map(({ key }) => key),
        doubted,
      );
    }
    const args = argumentsIn(text).find((some) => some.includes('--store')) ?? [];
    const store = args[args.indexOf('--store') + 1] ?? '';
    if (isS3Location(store)) assert.equal(parseS3Location(store).bucket, 'images');
    else assert.equal(store, 'file:/data');
  });

test('the command knows every flag that the manifests give it', async () => {
  const text = await render('mirrors', ...flagsOf(cases.get('everything at once') ?? {}));
  const seen = new Set<string>();
  for (const args of argumentsIn(text)) {
    const subcommand = args.find((arg) => !arg.startsWith('-') && arg !== 'debug') ?? '';
    const { stdout } = await weir(subcommand, '--help');
    for (const flag of args.slice(args.indexOf(subcommand)).filter((arg) => arg.startsWith('--')))
      assert.match(stdout, new RegExp(`${flag} <`), `weir ${subcommand} ${flag}`);
    seen.add(subcommand);
  }
  assert.deepEqual([...seen].toSorted(), ['agent', 'registry', 'uninstall', 'verify', 'webhook']);
});

test('all that a namespace holds is put into it by name', async () => {
  const clusterWide = new Set([
    'ClusterRole',
    'ClusterRoleBinding',
    'ValidatingAdmissionPolicy',
    'ValidatingAdmissionPolicyBinding',
  ]);
  for (const { kind, metadata } of manifestsIn(
    await render('mirrors', ...flagsOf(cases.get('everything at once') ?? {})),
  ))
    assert.equal(
      metadata.namespace,
      clusterWide.has(kind) ? undefined : 'mirrors',
      `${kind} ${metadata.name}`,
    );
});

test('npm run manifests writes what kubectl applies, without anything of Helm', async () => {
  const script = join(import.meta.dirname, '..', '..', 'charts', 'manifests.ts');
  const out = join(directory, 'deploy', 'weir.yaml');
  const flags = ['--namespace', 'mirrors', '--set', 's3.bucket=images', '--set', 's3.region=x', '--out', out];
  await run(process.execPath, [script, ...flags]);

  const text = await readFile(out, 'utf8');
  assert.match(await checkAgainstSchemas(text), /Invalid: 0, Errors: 0/);
  const manifests = manifestsIn(text);
  assert.deepEqual(
    manifests
      .filter(({ kind }) => ['Namespace', 'DaemonSet', 'Deployment', 'Job', 'Pod'].includes(kind))
      .map(({ kind }) => kind),
    ['Namespace', 'DaemonSet', 'Deployment', 'Deployment'],
  );
  assert.doesNotMatch(text, /helm\.sh|managed-by|Source:|helm upgrade/);
  assert.deepEqual(
    manifests.flatMap(({ metadata }) => (/-(?:test|uninstall)$/.test(metadata.name) ? [metadata.name] : [])),
    [],
  );
});

test('the Pod of the uninstall is refused where hooks are applied as if they were objects', async () => {
  const pods = manifestsIn(await render('mirrors')).filter(({ kind }) => kind === 'Pod');
  // kubectl makes the first, and cannot make it into the second.
  assert.deepEqual(
    pods.map(({ metadata }) => metadata.name),
    ['weir-hook', 'weir-hook'],
  );
  const [first = [], second = []] = pods.map((one) => argumentsIn(JSON.stringify(one)).flat());
  assert.equal(first[0], 'verify');
  assert.equal(second[0], 'uninstall');
});
