import { fromJSON, type PackageDefinition } from '@grpc/proto-loader';

/** How a call is put into bytes and its answer read from them. */
export interface Method {
  /** `/runtime.v1.ImageService/PullImage` */
  readonly path: string;
  readonly write: (request: object) => Buffer;
  /** What comes out has the right types of fields, and is still to be parsed. */
  readonly read: (bytes: Buffer) => unknown;
}

type Service = 'ImageService' | 'RuntimeService';

/** @throws Error when the definition below has no such method. */
export function criMethod(service: Service, name: string): Method {
  const definition = criMessages()[`runtime.v1.${service}`];
  // A service has methods under their names, a message has `format`.
  const method = definition === undefined || 'format' in definition ? undefined : definition[name];
  if (method === undefined || typeof method === 'string') throw new Error(`CRI has no ${service}.${name}`);
  const { path, requestSerialize, responseDeserialize } = method;
  return { path, write: requestSerialize, read: responseDeserialize };
}

/** Every service and message that weir knows of CRI; made when it is first wanted. */
export function criMessages(): PackageDefinition {
  messages ??= define();
  return messages;
}

let messages: PackageDefinition | undefined;

/**
 * What weir uses of `runtime.v1` (kubernetes/cri-api, pkg/apis/runtime/v1/api.proto), under the names and numbers
 * that it has there. Fields that are not named here are passed over.
 */
function define(): PackageDefinition {
  const empty = { fields: {} };
  const ofImage = { fields: { image: { type: 'ImageSpec', id: 1 } } };
  const info = { keyType: 'string', type: 'string', id: 2 };
  const nested = {
    RuntimeService: {
      methods: {
        Version: method('Version'),
        Status: method('Status'),
        ListContainers: method('ListContainers'),
        ListPodSandbox: method('ListPodSandbox'),
      },
    },
    ImageService: {
      methods: {
        ListImages: method('ListImages'),
        PullImage: method('PullImage'),
        RemoveImage: method('RemoveImage'),
      },
    },
    VersionRequest: { fields: { version: { type: 'string', id: 1 } } },
    VersionResponse: {
      fields: { runtimeName: { type: 'string', id: 2 }, runtimeVersion: { type: 'string', id: 3 } },
    },
    StatusRequest: { fields: { verbose: { type: 'bool', id: 1 } } },
    StatusResponse: { fields: { status: { type: 'RuntimeStatus', id: 1 }, info } },
    RuntimeStatus: { fields: { conditions: { rule: 'repeated', type: 'RuntimeCondition', id: 1 } } },
    RuntimeCondition: {
      fields: {
        type: { type: 'string', id: 1 },
        status: { type: 'bool', id: 2 },
        reason: { type: 'string', id: 3 },
        message: { type: 'string', id: 4 },
      },
    },
    ListContainersRequest: empty,
    ListContainersResponse: { fields: { containers: { rule: 'repeated', type: 'Container', id: 1 } } },
    Container: { fields: { id: { type: 'string', id: 1 }, state: { type: 'int32', id: 6 } } },
    ListPodSandboxRequest: empty,
    ListPodSandboxResponse: { fields: { items: { rule: 'repeated', type: 'PodSandbox', id: 1 } } },
    PodSandbox: { fields: { id: { type: 'string', id: 1 }, state: { type: 'int32', id: 3 } } },
    ImageSpec: { fields: { image: { type: 'string', id: 1 } } },
    Image: {
      fields: {
        id: { type: 'string', id: 1 },
        repoTags: { rule: 'repeated', type: 'string', id: 2 },
        repoDigests: { rule: 'repeated', type: 'string', id: 3 },
      },
    },
    ListImagesRequest: empty,
    ListImagesResponse: { fields: { images: { rule: 'repeated', type: 'Image', id: 1 } } },
    PullImageRequest: ofImage,
    PullImageResponse: { fields: { imageRef: { type: 'string', id: 1 } } },
    RemoveImageRequest: ofImage,
    RemoveImageResponse: empty,
  };
  return fromJSON({ nested: { runtime: { nested: { v1: { nested } } } } }, { defaults: true });
}

function method(name: string) {
  return { requestType: `${name}Request`, responseType: `${name}Response`, comment: '' };
}
