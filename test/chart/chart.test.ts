import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { parse } from 'yaml';
import * as z from 'zod';
import { CHART, KUBERNETES_VERSION, render, renderReadme, runTool } from '../../charts/helm.ts';
import { configSchema } from '../../config/schema.ts';
import { cases, flagsOf } from './cases.ts';

const withProperties = z.object({ properties: z.record(z.string(), z.unknown()) });
const read = (...path: readonly string[]): string => readFileSync(join(CHART, ...path), 'utf8');

test('the chart is of the version that it installs', () => {
  const { version } = z.object({ version: z.string() }).parse(JSON.parse(read('..', '..', 'package.json')));
  const chart = z.object({ version: z.string(), appVersion: z.string() }).parse(parse(read('Chart.yaml')));
  assert.equal(chart.appVersion, version);
});

for (const [name, values] of cases)
  test(`helm lint has nothing to say: ${name}`, async () => {
    const flags = ['--strict', '--quiet', '--kube-version', KUBERNETES_VERSION, ...flagsOf(values)];
    await runTool('helm', 'lint', ...flags, CHART);
  });

test("the chart's own tests pass", async () => {
  const said = await runTool('untt', '--strict', CHART);
  assert.match(said, /^Tests: +\d+ passed/m);
});

test('every sentence of a refusal has a test', () => {
  const sentences = read('templates', '_validate.tpl')
    .replace(/\{\{-? ?\/\*.*?\*\/ ?-?\}\}/gs, '')
    .split('\n')
    .filter((line) => line.endsWith('.') && !line.startsWith('{{-'));
  assert.ok(sentences.length >= 30, `${sentences.length} sentences are found`);
  const patterns = read('tests', 'refusals_test.yaml').replaceAll('\\', '');
  const untested = sentences.filter((sentence) => !asPattern(sentence).test(patterns));
  assert.deepEqual(untested, []);
});

test('the README is what its values and its template make, with a description of every value', async () => {
  const made = await renderReadme();
  const undescribed = made.split('\n').filter((line) => line.startsWith('|') && /\|\s*\|$/.test(line));
  assert.deepEqual(undescribed, []);
  assert.ok(made === read('README.md'), 'charts/weir/README.md is another: run npm run chart:docs');
});

test('the values in the documents are accepted', async () => {
  const page = read('..', '..', 'docs', 'kubernetes.md');
  const examples = [...page.matchAll(/^```yaml\n(.*?)^```/gms)].map(([, text = '']) => text);
  assert.ok(examples.length > 0);
  for (const text of examples) await render('weir', ...flagsOf(z.looseObject({}).parse(parse(text))));
});

test('the values know the keys of the configuration, neither more nor fewer', () => {
  const { properties, definitions } = z
    .object({
      properties: z.object({ config: withProperties }),
      definitions: z.record(z.string(), z.unknown()),
    })
    .parse(JSON.parse(read('values.schema.json')));
  const program = withProperties.parse(z.toJSONSchema(configSchema, { io: 'input', unrepresentable: 'any' }));
  const chart = new Set(Object.keys(properties.config.properties));
  assert.ok(chart.delete('existingConfigMap'));
  assert.deepEqual([...chart].toSorted(), Object.keys(program.properties).toSorted());

  const upstreamOfProgram = configSchema.shape.upstreams.unwrap().unwrap().valueType.unwrap();
  const upstreamOfChart = withProperties.parse(definitions['upstream']);
  assert.deepEqual(
    Object.keys(upstreamOfChart.properties).toSorted(),
    Object.keys(upstreamOfProgram.shape).toSorted(),
  );
});

/** What a template's line can become, where the text of a test has backslashes taken out. */
function asPattern(line: string): RegExp {
  const parts = line.split(/\{\{.*?\}\}/).map((part) => part.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&'));
  return new RegExp(parts.join('.+'));
}
