// An image as it lies in an OCI image layout (https://github.com/opencontainers/image-spec, image-layout.md).

import { createReadStream } from 'node:fs';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';
import { extract, type Header } from 'tar-stream';
import * as z from 'zod';
import { run } from '../tools/command.ts';

const descriptor = z.object({ digest: z.templateLiteral(['sha256:', z.string()]), size: z.number() });
const indexSchema = z.object({ manifests: z.tuple([descriptor]) });
const manifestSchema = z.object({ config: descriptor, layers: z.array(descriptor) });
const configSchema = z.object({
  config: z.object({
    User: z.string(),
    Env: z.array(z.string()),
    Entrypoint: z.array(z.string()),
    Cmd: z.array(z.string()).default([]),
    Labels: z.record(z.string(), z.string()),
    StopSignal: z.string(),
  }),
});

export type ImageConfig = z.infer<typeof configSchema>['config'];

export interface LayoutImage {
  readonly config: ImageConfig;
  /** Files of the layers, lowest first. */
  readonly layers: readonly string[];
}

/** The one image of a layout. */
export async function readLayout(layout: string): Promise<LayoutImage> {
  const blob = ({ digest }: z.infer<typeof descriptor>): string =>
    join(layout, 'blobs', ...digest.split(':'));
  const { manifests } = indexSchema.parse(await readJson(join(layout, 'index.json')));
  const manifest = manifestSchema.parse(await readJson(blob(manifests[0])));
  const { config } = configSchema.parse(await readJson(blob(manifest.config)));
  return { config, layers: manifest.layers.map(blob) };
}

/** What a layer puts into the image, in its order. */
export async function listLayer(layer: string): Promise<Header[]> {
  const found: Header[] = [];
  const tar = extract();
  tar.on('entry', (header, content, next) => {
    found.push(header);
    content.on('end', next).resume();
  });
  await pipeline(createReadStream(layer), createGunzip(), tar);
  return found;
}

/** A root file system of all layers; none of ours removes what is below it. */
export async function unpack({ layers }: LayoutImage, directory: string): Promise<void> {
  await mkdir(directory, { recursive: true });
  for (const layer of layers) await run('tar', ['-xzf', layer, '-C', directory]);
}

async function readJson(file: string): Promise<unknown> {
  return JSON.parse(await readFile(file, 'utf8'));
}
