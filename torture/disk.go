package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// disk is where a registry or a database keeps what it has: a small file system of its own where that is allowed.
type disk struct {
	dir   string
	small bool
}

// makeDisks makes the four of them. Where none can be mounted, the faults that need one are left out and the log says so.
func (w *world) makeDisks() error {
	for _, name := range w.parts().disks {
		dir := w.path(name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		unmount, err := mountDisk(dir)
		if err != nil {
			w.diary.Note("world", "%s cannot be filled: %v", name, err)
		} else {
			w.closers = append(w.closers, unmount)
		}
		w.disks[name] = &disk{dir: dir, small: err == nil}
	}
	return nil
}

// fill leaves no byte free on a disk, until end.
func (w *world) fill(name string) (end func() error, err error) {
	d := w.disks[name]
	if !d.small {
		w.diary.Note("fault", "%s is left alone: it is no disk of its own", name)
		return nil, nil // it is over at once
	}
	filler := filepath.Join(d.dir, "filler")
	end = func() error { return os.Remove(filler) }
	file, err := os.Create(filler)
	if errors.Is(err, syscall.ENOSPC) {
		return nil, nil // full already
	}
	if err != nil {
		return nil, err
	}
	for size := 1 << 20; size > 0; { // first by much, then to the last byte
		_, err := file.Write(make([]byte, size))
		switch {
		case errors.Is(err, syscall.ENOSPC):
			size /= 16
		case err != nil:
			return nil, errors.Join(fmt.Errorf("fill %s: %w", name, err), file.Close(), end())
		}
	}
	return end, file.Close()
}
