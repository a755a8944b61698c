/* Functions that glibc has had in its library since 2.33 only, by those that it had before and
 * still has. Here, so that the library asks for no newer glibc. */
struct stat64;

int __xstat64(int version, const char *path, struct stat64 *buffer);
int __fxstat64(int version, int fd, struct stat64 *buffer);

#ifdef __x86_64__
#define STAT_VERSION 1
#else
#define STAT_VERSION 0
#endif

int stat64(const char *path, struct stat64 *buffer)
{
    return __xstat64(STAT_VERSION, path, buffer);
}

int fstat64(int fd, struct stat64 *buffer)
{
    return __fxstat64(STAT_VERSION, fd, buffer);
}
