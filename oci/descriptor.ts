/** Media types of what `/manifests/` may answer (OCI image specification; Docker image manifest version 2). */
export const MANIFEST_TYPES = [
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.oci.image.manifest.v1+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
  'application/vnd.docker.distribution.manifest.v2+json',
  'application/vnd.oci.artifact.manifest.v1+json',
  'application/vnd.docker.distribution.manifest.v1+prettyjws',
  'application/vnd.docker.distribution.manifest.v1+json',
] as const;

/** The type of a blob whose own type the registry does not know: only the manifest that names it does. */
export const BLOB_TYPE = 'application/octet-stream';
