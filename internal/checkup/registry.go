package checkup

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"time"

	"github.com/antipode-registry/antipode/internal/registry"
)

// Registry is one registry under examination.
type Registry struct {
	Name   string // how findings call it: "registry", "primary's registry"
	Handle *registry.Registry
	CAFile string // trusted besides the system's
}

// CheckRegistry asks whether a registry answers and takes our credentials, compares its clock, and looks when its
// certificate ends. It says whether there is any point in asking it more.
func (r *Report) CheckRegistry(ctx context.Context, reg Registry) bool {
	ctx, cancel := Within(ctx)
	defer cancel()
	there, err := reg.Handle.Clock(ctx)
	if err != nil {
		r.Fail(reg.Name, mendRegistry(err), "%v", err)
		return false
	}
	r.OK(reg.Name, "%s answers and takes our credentials", reg.Handle.URL())
	r.checkClock(reg.Name, there, time.Now())
	r.checkServer(ctx, reg)
	return true
}

// mendRegistry says what to do about a registry's refusal. The error has said more already where it could.
func mendRegistry(err error) string {
	switch {
	case errors.Is(err, registry.ErrUnauthorized):
		return "docker login as the daemon's user, with an account that may do this"
	case errors.Is(err, registry.ErrUnavailable):
		return "start the registry, or correct its URL; for https see that ca_file holds its authority"
	}
	return "check that the URL is a registry's, and that no proxy or login page answers in its place"
}

// checkServer looks when the certificate of a registry under https ends. That it is valid has been seen already.
func (r *Report) checkServer(ctx context.Context, reg Registry) {
	base, err := url.Parse(reg.Handle.URL())
	if err != nil || base.Scheme != "https" {
		return
	}
	address := base.Host
	if base.Port() == "" {
		address = net.JoinHostPort(base.Hostname(), "443")
	}
	roots, err := roots(reg.CAFile)
	if err != nil {
		return // the handle could not have been opened
	}
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		r.Warn(reg.Name, "look yourself when its certificate ends", "its certificate cannot be looked at directly: %v", err)
		return
	}
	defer func() { _ = conn.Close() }() // nothing was sent
	if secured, ok := conn.(*tls.Conn); ok {
		r.checkEnd(reg.Name, "its certificate", secured.ConnectionState().PeerCertificates[0])
	}
}

// roots are the system's authorities and those in file.
func roots(file string) (*x509.CertPool, error) {
	pool, err := x509.SystemCertPool()
	if err != nil || file == "" {
		return pool, err
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool.AppendCertsFromPEM(content)
	return pool, nil
}

// CheckRead reads what a tag names, and one of its blobs.
func (r *Report) CheckRead(ctx context.Context, reg Registry, repository, tag string) {
	ctx, cancel := Within(ctx)
	defer cancel()
	manifest, err := reg.Handle.Manifest(ctx, repository, tag)
	if err != nil {
		r.Fail(reg.Name, mendRegistry(err), "%v", err)
		return
	}
	blob, found := config(manifest)
	if !found {
		r.OK(reg.Name, "manifests can be read (%s:%s)", repository, tag)
		return
	}
	switch _, there, err := reg.Handle.HasBlob(ctx, repository, blob); {
	case err != nil:
		r.Fail(reg.Name, mendRegistry(err), "%v", err)
	case !there:
		r.Fail(reg.Name, "push "+repository+":"+tag+" again", "%s:%s is damaged: its config is not there", repository, tag)
	default:
		r.OK(reg.Name, "manifests and blobs can be read (%s:%s)", repository, tag)
	}
}

// config is the digest of an image's config; an index has none.
func config(manifest registry.Manifest) (digest string, found bool) {
	var image struct {
		Config struct {
			Digest string `json:"digest"`
		} `json:"config"`
	}
	if err := json.Unmarshal(manifest.Bytes, &image); err != nil {
		return "", false
	}
	return image.Config.Digest, image.Config.Digest != ""
}

// CheckReferrers looks whether the registry has the referrers API; either is fine.
func (r *Report) CheckReferrers(ctx context.Context, reg Registry, repository, digest string) {
	ctx, cancel := Within(ctx)
	defer cancel()
	switch _, supported, err := reg.Handle.Referrers(ctx, repository, digest); {
	case err != nil:
		r.Warn(reg.Name, mendRegistry(err), "%v", err)
	case supported:
		r.OK(reg.Name, "it has the referrers API")
	default:
		r.OK(reg.Name, "it has no referrers API: signatures and the like are followed by their tags")
	}
}

// CheckWrite writes a probe into the reserved repository, reads it, deletes it by tag and looks that it is gone. What
// of it could not be taken back is in the findings.
func (r *Report) CheckWrite(ctx context.Context, reg Registry, repository, tag string) {
	if digest, ok := r.PushProbe(ctx, reg, repository, tag); ok {
		r.RemoveProbe(ctx, reg, repository, tag, digest)
	}
}

// PushProbe writes a probe and reads it again.
func (r *Report) PushProbe(ctx context.Context, reg Registry, repository, tag string) (digest string, ok bool) {
	ctx, cancel := Within(ctx)
	defer cancel()
	digest, err := reg.Handle.PutProbe(ctx, repository, tag)
	if err != nil {
		r.Fail(reg.Name, mendWrite(err, repository), "%v", err)
		return "", false
	}
	found, _, err := reg.Handle.Resolve(ctx, repository, []string{tag})
	if err != nil || len(found) != 1 || found[0].Digest != digest {
		r.Fail(reg.Name, "see whether something else than the registry answers at this URL, such as a cache",
			"what was written is not what is read: %s:%s is %v, %v", repository, tag, found, err)
		return digest, false
	}
	r.OK(reg.Name, "it can be written to (%s:%s)", repository, tag)
	return digest, true
}

func mendWrite(err error, repository string) string {
	if errors.Is(err, registry.ErrUnauthorized) {
		return "docker login as the daemon's user, with an account that may push to " + repository
	}
	return fmt.Sprintf("let the account push to %s, or set `doctor.repository` to one that it may push to; "+
		"some registries need a project to exist", repository)
}

// RemoveProbe deletes a probe by its tag, as tags are deleted when they are gone at the primary, and then its manifest.
func (r *Report) RemoveProbe(ctx context.Context, reg Registry, repository, tag, digest string) {
	ctx, cancel := Within(ctx)
	defer cancel()
	if err := reg.Handle.DeleteTag(ctx, repository, tag); err != nil {
		r.Fail(reg.Name, "allow deletes: see docs/registries.md for this kind of registry",
			"tags cannot be deleted, and the probe %s:%s is left behind: %v", repository, tag, err)
		return
	}
	found, _, err := reg.Handle.Resolve(ctx, repository, []string{tag})
	switch {
	case err != nil:
		r.Warn(reg.Name, mendRegistry(err), "whether %s:%s is deleted cannot be seen: %v", repository, tag, err)
	case len(found) > 0:
		r.Fail(reg.Name, "look into the registry's log; its kind may need more, see docs/registries.md",
			"it says that it deleted %s:%s, which is still there", repository, tag)
	default:
		r.OK(reg.Name, "tags can be deleted (%s:%s)", repository, tag)
	}
	// Without its tag it is garbage, which the registry would collect one day; some do not delete by digest at all.
	_ = reg.Handle.DeleteManifest(ctx, repository, digest)
}
