//go:build !linux

package main

import "errors"

// mountDisk is for Linux alone.
func mountDisk(string) (unmount func(), err error) { return nil, errors.ErrUnsupported }
