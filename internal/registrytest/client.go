package registrytest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// errAbsent says that the registry answered 404.
var errAbsent = errors.New("not found")

// Manifest is a manifest as a registry returned it.
type Manifest struct {
	MediaType, Digest string
	Bytes             []byte
}

// Client is a minimal registry client for tests: plain net/http, no retry, no cache, no check before an upload. It may
// be used from many goroutines at once. The functions of this package that take a testing.TB use one and fail the test.
type Client struct {
	base string
	http *http.Client
}

// NewClient makes a client of the registry at baseURL. A user and password in the URL are sent with each request.
// The caller closes it.
func NewClient(baseURL string) *Client {
	transport := &http.Transport{MaxIdleConnsPerHost: 16, DisableCompression: true}
	return &Client{
		base: strings.TrimSuffix(baseURL, "/"),
		http: &http.Client{Transport: transport, Timeout: 2 * time.Minute},
	}
}

// Close drops the idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Push uploads img with its children, each blob by POST and PUT whether the registry has it or not, and then its
// manifest under tag, or by digest where tag is "".
func (c *Client) Push(ctx context.Context, repository, tag string, img Image) error {
	for _, child := range img.Children {
		if err := c.Push(ctx, repository, "", child); err != nil {
			return err
		}
	}
	for _, digest := range slices.Sorted(maps.Keys(img.Blobs)) {
		if err := c.PutBlob(ctx, repository, digest, img.Blobs[digest]); err != nil {
			return err
		}
	}
	reference := tag
	if reference == "" {
		reference = img.Digest
	}
	return c.PutManifest(ctx, repository, reference, img.MediaType, img.Manifest)
}

// PutBlob uploads one blob.
func (c *Client) PutBlob(ctx context.Context, repository, digest string, body []byte) error {
	resp, err := c.do(ctx, call{method: http.MethodPost, path: repository + "/blobs/uploads/"}, http.StatusAccepted)
	if err != nil {
		return err
	}
	drain(resp)
	location, err := resp.Request.URL.Parse(resp.Header.Get("Location"))
	if err != nil {
		return fmt.Errorf("upload to %s: location: %w", repository, err)
	}
	if location.User == nil {
		location.User = resp.Request.URL.User
	}
	query := location.Query()
	query.Set("digest", digest)
	location.RawQuery = query.Encode()
	put := call{method: http.MethodPut, url: location, body: body, mediaType: "application/octet-stream"}
	resp, err = c.do(ctx, put, http.StatusCreated)
	if err != nil {
		return err
	}
	drain(resp)
	return nil
}

// PutManifest writes a manifest under a tag or its digest.
func (c *Client) PutManifest(ctx context.Context, repository, reference, mediaType string, body []byte) error {
	put := call{
		method: http.MethodPut, path: repository + "/manifests/" + reference, body: body, mediaType: mediaType,
	}
	resp, err := c.do(ctx, put, http.StatusCreated)
	if err != nil {
		return err
	}
	drain(resp)
	return nil
}

// Retag points newTag at a manifest that the repository has.
func (c *Client) Retag(ctx context.Context, repository, digest, newTag string) error {
	m, err := c.Manifest(ctx, repository, digest)
	if err != nil {
		return err
	}
	return c.PutManifest(ctx, repository, newTag, m.MediaType, m.Bytes)
}

// Delete removes a manifest by tag or by digest, or a blob where reference is "blobs/DIGEST". What that does to other
// tags is the registry's own affair.
func (c *Client) Delete(ctx context.Context, repository, reference string) error {
	path := repository + "/manifests/" + reference
	if strings.HasPrefix(reference, "blobs/") {
		path = repository + "/" + reference
	}
	resp, err := c.do(ctx, call{method: http.MethodDelete, path: path}, http.StatusAccepted)
	if err != nil {
		return err
	}
	drain(resp)
	return nil
}

// Manifest reads a manifest by tag or digest. [IsAbsent] tells a 404 from other errors.
func (c *Client) Manifest(ctx context.Context, repository, reference string) (Manifest, error) {
	get := call{method: http.MethodGet, path: repository + "/manifests/" + reference, accept: true}
	resp, err := c.do(ctx, get, http.StatusOK)
	if err != nil {
		return Manifest{}, err
	}
	defer drain(resp)
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return Manifest{}, fmt.Errorf("read manifest %s of %s: %w", reference, repository, err)
	}
	return Manifest{MediaType: resp.Header.Get("Content-Type"), Digest: Digest(body), Bytes: body}, nil
}

// Blob reads a whole blob.
func (c *Client) Blob(ctx context.Context, repository, digest string) ([]byte, error) {
	resp, err := c.do(ctx, call{method: http.MethodGet, path: repository + "/blobs/" + digest}, http.StatusOK)
	if err != nil {
		return nil, err
	}
	defer drain(resp)
	return io.ReadAll(resp.Body)
}

// BlobSize asks for the size of a blob in bytes.
func (c *Client) BlobSize(ctx context.Context, repository, digest string) (int64, error) {
	resp, err := c.do(ctx, call{method: http.MethodHead, path: repository + "/blobs/" + digest}, http.StatusOK)
	if err != nil {
		return 0, err
	}
	drain(resp)
	return resp.ContentLength, nil
}

// TagNames lists the repository's tags; one that is not there has none.
func (c *Client) TagNames(ctx context.Context, repository string) ([]string, error) {
	names, err := c.list(ctx, repository+"/tags/list", "tags")
	if IsAbsent(err) {
		return nil, nil
	}
	return names, err
}

// Tags lists the repository's tags with the digest of each. A repository that is not there has none, and so has a tag
// that goes between the listing and the question for its digest.
func (c *Client) Tags(ctx context.Context, repository string) (map[string]string, error) {
	tags := map[string]string{}
	names, err := c.TagNames(ctx, repository)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		head := call{method: http.MethodHead, path: repository + "/manifests/" + name, accept: true}
		resp, err := c.do(ctx, head, http.StatusOK)
		if IsAbsent(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		drain(resp)
		tags[name] = resp.Header.Get("Docker-Content-Digest")
	}
	return tags, nil
}

// Repositories lists the registry's catalog. Registries keep repositories in it whose last tag is gone.
func (c *Client) Repositories(ctx context.Context) ([]string, error) {
	return c.list(ctx, "_catalog", "repositories")
}

// IsAbsent says whether the registry answered that what was asked for is not there.
func IsAbsent(err error) bool { return errors.Is(err, errAbsent) }

// list follows the pages of a list to its end.
func (c *Client) list(ctx context.Context, path, field string) ([]string, error) {
	var all []string
	next := call{method: http.MethodGet, path: path}
	for {
		resp, err := c.do(ctx, next, http.StatusOK)
		if err != nil {
			return nil, err
		}
		var page map[string]json.RawMessage
		var names []string
		err = json.NewDecoder(resp.Body).Decode(&page)
		drain(resp)
		if err == nil && len(page[field]) > 0 {
			err = json.Unmarshal(page[field], &names)
		}
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", path, err)
		}
		all = append(all, names...)
		link, _, found := strings.Cut(strings.TrimPrefix(resp.Header.Get("Link"), "<"), ">")
		if !found {
			return all, nil
		}
		if next.url, err = resp.Request.URL.Parse(link); err != nil {
			return nil, fmt.Errorf("list %s: link: %w", path, err)
		}
	}
}

// call is one request: to path below /v2/, or to url where it is set.
type call struct {
	method, path string
	url          *url.URL
	body         []byte
	mediaType    string
	accept       bool // send the Accept header for manifests
}

// do sends one request and wants exactly one status. The caller drains the response.
func (c *Client) do(ctx context.Context, in call, want int) (*http.Response, error) {
	target := c.base + "/v2/" + in.path
	if in.url != nil {
		target = in.url.String()
	}
	req, err := http.NewRequestWithContext(ctx, in.method, target, bytes.NewReader(in.body))
	if err != nil {
		return nil, err
	}
	if in.mediaType != "" {
		req.Header.Set("Content-Type", in.mediaType)
	}
	if in.accept {
		req.Header["Accept"] = []string{OCIManifest, OCIIndex, DockerManifest, DockerList, "*/*"}
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == want {
		return resp, nil
	}
	defer drain(resp)
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 2048)) // what can be read of the reason is enough
	err = fmt.Errorf("%s %s: %s: %s", in.method, req.URL.Redacted(), resp.Status, bytes.TrimSpace(body))
	if resp.StatusCode == http.StatusNotFound {
		err = fmt.Errorf("%w (%w)", err, errAbsent)
	}
	return nil, err
}

// drain reads the rest of the body, so that the connection can be used again.
func drain(resp *http.Response) {
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20))
	_ = resp.Body.Close()
}
