package authority

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/antipode-registry/antipode/internal/link"
)

// File names inside a directory; a leaf's are NAME.crt and NAME.key.
const (
	caName   = "ca"
	certExt  = ".crt"
	keyExt   = ".key"
	certMode = 0o644
	keyMode  = 0o600
	dirMode  = 0o700
)

// Init makes an authority in dir: ca.crt and ca.key (mode 0600). The directory is created when it is missing. It
// refuses, with an error that is fs.ErrExist, to touch a directory that has either file.
func Init(dir string) error {
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	a, err := New()
	if err != nil {
		return err
	}
	pair, err := a.Pair()
	if err != nil {
		return err
	}
	for _, ext := range []string{keyExt, certExt} {
		path := filepath.Join(dir, caName+ext)
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("authority: %s: %w; a CA is never overwritten", path, fs.ErrExist)
		}
	}
	// O_EXCL on the key decides between two runs at once; the key is there before the certificate that needs it.
	if err := create(filepath.Join(dir, caName+keyExt), pair.Key, keyMode); err != nil {
		return err
	}
	if err := create(filepath.Join(dir, caName+certExt), pair.Certificate, certMode); err != nil {
		// The key is ours and certifies nothing yet; left behind it would stand in the way of the next try.
		return errors.Join(err, os.Remove(filepath.Join(dir, caName+keyExt)))
	}
	return nil
}

// create writes a file that must not exist yet.
func create(path string, content []byte, mode fs.FileMode) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	if err := fill(file, content, mode); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// Open reads the authority in dir.
func Open(dir string) (*Authority, error) {
	certificate, err := os.ReadFile(filepath.Join(dir, caName+certExt))
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	key, err := os.ReadFile(filepath.Join(dir, caName+keyExt))
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	return Parse(Pair{Certificate: certificate, Key: key})
}

// Issue makes NAME.crt and NAME.key (mode 0600) in dir, signed by the CA there, for server and client use, for a year.
// Without hosts the certificate is for localhost, 127.0.0.1 and ::1. An existing pair is replaced, each file in one
// step.
func Issue(dir, name string, role link.Role, hosts []string) error {
	if !role.Valid() {
		return fmt.Errorf("authority: %q is not a role: use primary, node or operator", string(role))
	}
	if name == caName {
		return fmt.Errorf("authority: the name %q is taken by the CA's own files", name)
	}
	a, err := Open(dir)
	if err != nil {
		return err
	}
	if len(hosts) == 0 {
		hosts = []string{"localhost", "127.0.0.1", "::1"}
	}
	pair, err := a.Issue(Leaf{Name: name, Role: role, Hosts: hosts})
	if err != nil {
		return err
	}
	return Write(pair, filepath.Join(dir, name+certExt), filepath.Join(dir, name+keyExt))
}

// Write puts a pair into its two files, replacing each in one step, the key first. A daemon that looks between the two
// finds a pair that does not match and keeps the one it has.
func Write(pair Pair, certFile, keyFile string) error {
	if err := replace(keyFile, pair.Key, keyMode); err != nil {
		return err
	}
	return replace(certFile, pair.Certificate, certMode)
}

// replace writes beside the file and renames, so that a reader finds the old content or the new.
func replace(path string, content []byte, mode fs.FileMode) error {
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	if err := fill(file, content, mode); err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return errors.Join(fmt.Errorf("authority: %w", err), os.Remove(file.Name()))
	}
	return nil
}

// fill writes, syncs and closes.
func fill(file *os.File, content []byte, mode fs.FileMode) error {
	_, err := file.Write(content)
	if err == nil {
		err = file.Chmod(mode)
	}
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("authority: writing %s: %w", file.Name(), err)
	}
	return nil
}
