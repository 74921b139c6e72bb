package checkup

import "syscall"

// freeSpace is how many bytes an unprivileged process may still write in dir.
func freeSpace(dir string) (free uint64, known bool) {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(dir, &stat); err != nil || stat.Bsize <= 0 {
		return 0, false
	}
	return stat.Bavail * uint64(stat.Bsize), true
}
