//go:build !linux

package registrytest

import "syscall"

// dieWithParent has nothing to offer here: the test's cleanup alone ends the child.
func dieWithParent() *syscall.SysProcAttr { return nil }
