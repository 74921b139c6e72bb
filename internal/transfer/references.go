package transfer

import "github.com/antipode-registry/antipode/internal/registry"

// References returns what a manifest refers to that is a manifest itself: the children of an index, in its order, and
// the digest of the subject, "" without one. Blobs are left out, and with them the entries of an index that are blobs.
// The error matches ErrUnsupported: what m refers to cannot be told.
func References(m registry.Manifest) (children []registry.Descriptor, subject string, err error) {
	doc, err := parse(m.Bytes, m.MediaType)
	if err != nil {
		return nil, "", err
	}
	return doc.manifests, doc.subject, nil
}
