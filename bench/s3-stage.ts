import { type Blob, ContainerdClient } from './containerd-client.ts';
import type { StoreContent } from './fault-row.ts';
import { FaultyS3 } from './faulty-s3.ts';
import type { MinioProcess } from './minio-process.ts';
import { Scene } from './scene.ts';
import type { Descriptor, Pushed } from './upstream-control.ts';
import { HOST, type WeirProcess } from './weir-process.ts';

export const SIZE = 50_000_000;

/** What a node got of an image with one layer. */
export interface NodePull {
  /** Of the tag. */
  readonly manifestStatus: number;
  readonly manifestMs: number;
  readonly layer: Blob;
}

/** A scene whose store is a prefix of its own in a real bucket, behind a server that can be made faulty. */
export class S3Stage {
  readonly scene: Scene;
  readonly s3: FaultyS3;
  readonly prefix: string;
  readonly image: Pushed;
  readonly layer: Descriptor;
  readonly minio: MinioProcess;

  private constructor(scene: Scene, s3: FaultyS3, image: Pushed, minio: MinioProcess) {
    count += 1;
    const [layer] = image.layers;
    if (layer === undefined) throw new Error('the image has no layer');
    this.scene = scene;
    this.s3 = s3;
    this.prefix = `scene-${count}`;
    this.image = image;
    this.layer = layer;
    this.minio = minio;
  }

  static async open(minio: MinioProcess): Promise<S3Stage> {
    const scene = await Scene.open();
    const s3 = await FaultyS3.start(minio.endpoint);
    scene.defer(() => s3.refuse());
    return new S3Stage(scene, s3, await scene.upstream.push([SIZE]), minio);
  }

  async startWeir(): Promise<WeirProcess> {
    return await this.scene.startWeir({ store: this.minio.location(this.prefix, this.s3.endpoint) });
  }

  /** As a node does that has just been started: over new connections. */
  async pull(weir: WeirProcess): Promise<NodePull> {
    const client = new ContainerdClient({ origin: weir.url, ns: HOST, verify: true });
    const began = performance.now();
    try {
      const { status, endedAt } = await client.manifest(this.image.repository, 'latest');
      const layer = await client.blob(this.image.repository, this.layer);
      return { manifestStatus: status, manifestMs: endedAt - began, layer };
    } finally {
      client.close();
    }
  }

  async inspect(): Promise<StoreContent> {
    return await this.minio.inspect(this.prefix);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.scene[Symbol.asyncDispose]();
  }
}

let count = 0;
