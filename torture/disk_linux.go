package main

import (
	"os"
	"syscall"
)

// mountDisk makes dir a small disk of its own, which can be filled without harm to others. Only root may.
func mountDisk(dir string) (unmount func(), err error) {
	if os.Geteuid() != 0 {
		return nil, os.ErrPermission
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, "mode=0700,size=384m"); err != nil {
		return nil, err
	}
	// Detached: whoever still has a file open there does not keep the folder.
	return func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) }, nil
}
