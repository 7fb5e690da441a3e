/* SPDX-License-Identifier: Apache-2.0 */
/* Hands images to Podman: to its REST service where one listens, else to the program itself. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/http.h"
#include "base/json.h"
#include "base/proc.h"
#include "catalog/image_internal.h"

#define LOAD_MS (5u * 60 * 1000)

static bool service_listens(const char *socket_path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    if (socket_path == NULL || strlen(socket_path) >= sizeof(address.sun_path))
        return false;
    memcpy(address.sun_path, socket_path, strlen(socket_path) + 1);
    PK_CLEANUP(pk_close_p) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
}

static int open_service(const char *socket_path, struct pk_http_client **ret_client,
                        struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) char *url = pk_asprintf("unix:%s", socket_path);
    if (url == NULL)
        return pk_fail(err, PK_E_NOMEM, "out of memory");
    struct pk_http_client_options options = { .base_url = url, .timeout_ms = LOAD_MS };
    return pk_http_client_new(&options, ret_client, err);
}

void pk_podman_image_done(struct pk_podman_image *image)
{
    pk_free(image->digest);
    pk_free(image->recipe);
    pk_free(image->release);
    memset(image, 0, sizeof(*image));
}

/* answer: an image's inspection, which is outside input. */
static int read_image(const json_t *answer, struct pk_podman_image *ret_image, struct pk_error *err)
{
    const char *id = json_string_value(json_object_get(answer, "Id"));
    if (id == NULL || id[0] == '\0') {
        pk_fail(err, PK_E_IO, "Podman's answer about an image is not what it should be");
        return pk_hint(err, "is this Podman 4 or newer?"), PK_E_IO;
    }
    const json_t *labels = json_object_get(answer, "Labels");
    const char *recipe = json_string_value(json_object_get(labels, PK_IMAGE_LABEL_RECIPE));
    const char *release = json_string_value(json_object_get(labels, PK_IMAGE_LABEL_RELEASE));
    json_int_t bytes = json_integer_value(json_object_get(answer, "Size"));
    struct pk_podman_image image = {
        .digest = pk_str_starts(id, "sha256:") ? pk_strdup(id) : pk_asprintf("sha256:%s", id),
        .recipe = pk_strdup(recipe != NULL ? recipe : ""),
        .release = pk_strdup(release != NULL ? release : ""),
        .bytes = bytes > 0 ? (uint64_t)bytes : 0,
    };
    if (image.digest == NULL || image.recipe == NULL || image.release == NULL) {
        pk_podman_image_done(&image);
        return pk_fail(err, PK_E_NOMEM, "out of memory");
    }
    *ret_image = image;
    return 0;
}

static int find_by_service(const char *socket_path, const char *name,
                           struct pk_podman_image *ret_image, struct pk_error *err)
{
    PK_CLEANUP(pk_http_client_free_p) struct pk_http_client *client = NULL;
    int r = open_service(socket_path, &client, err);
    if (r < 0)
        return r;
    PK_CLEANUP(pk_free_p) char *escaped = pk_url_escape(name);
    PK_CLEANUP(pk_free_p)
    char *path = escaped != NULL ? pk_asprintf("/v4.0.0/libpod/images/%s/json", escaped) : NULL;
    if (path == NULL)
        return pk_fail(err, PK_E_NOMEM, "out of memory");
    PK_CLEANUP(pk_buf_done) struct pk_buf body = PK_BUF_INIT(16u << 20);
    struct pk_http_call call = { .method = "GET", .path = path };
    unsigned status = 0;
    r = pk_http_call(client, &call, &status, &body, err);
    if (r < 0)
        return pk_wrap(err, "Podman at %s", socket_path), r;
    if (status == 404) {
        *ret_image = (struct pk_podman_image){ 0 };
        return 0;
    }
    if (status != 200) {
        pk_fail(err, PK_E_IO, "Podman does not tell about %s (status %u)", name, status);
        return pk_hint(err, "see podman images"), PK_E_IO;
    }
    PK_JSON answer = NULL;
    r = pk_json_parse("Podman's answer", body.data != NULL ? body.data : "", body.len, &answer,
                      err);
    return r < 0 ? r : read_image(answer, ret_image, err);
}

static int no_podman(int r, struct pk_error *err)
{
    if (r == PK_E_NOTFOUND)
        pk_hint(err, "apt install podman");
    return pk_wrap(err, "podman"), r;
}

static int find_by_program(const char *name, struct pk_podman_image *ret_image,
                           struct pk_error *err)
{
    const char *const argv[] = { "podman", "image", "inspect", name, NULL };
    struct pk_proc_options options = { .argv = argv, .timeout_ms = 60000 };
    PK_CLEANUP(pk_buf_done) struct pk_buf out = PK_BUF_INIT(16u << 20);
    PK_CLEANUP(pk_buf_done) struct pk_buf errout = PK_BUF_INIT(65536);
    int status = 0;
    int r = pk_proc_run(&options, &out, &errout, &status, err);
    if (r < 0)
        return no_podman(r, err);
    if (status == 0) {
        PK_JSON answer = NULL;
        r = pk_json_parse("podman's answer", out.data != NULL ? out.data : "", out.len, &answer,
                          err);
        return r < 0 ? r : read_image(json_array_get(answer, 0), ret_image, err);
    }
    if (errout.data != NULL && (strstr(errout.data, "no such image") != NULL ||
                                strstr(errout.data, "image not known") != NULL)) {
        *ret_image = (struct pk_podman_image){ 0 };
        return 0;
    }
    pk_fail(err, PK_E_IO, "podman does not tell about %s", name);
    return pk_hint(err, "see what 'podman image inspect %s' says", name), PK_E_IO;
}

int pk_podman_image_find(const char *socket, const char *name, struct pk_podman_image *ret_image,
                         struct pk_error *err)
{
    return service_listens(socket) ? find_by_service(socket, name, ret_image, err)
                                   : find_by_program(name, ret_image, err);
}

static int load_by_service(const char *socket_path, const char *archive_path, struct pk_error *err)
{
    PK_CLEANUP(pk_http_client_free_p) struct pk_http_client *client = NULL;
    int r = open_service(socket_path, &client, err);
    if (r < 0)
        return r;
    PK_CLEANUP(pk_close_p) int fd = open(archive_path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return pk_fail_errno(err, errno, "%s", archive_path);
    void *data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED)
        return pk_fail_errno(err, errno, "%s", archive_path);
    struct pk_http_call call = { .method = "POST",
                                 .path = "/v4.0.0/libpod/images/load",
                                 .data = data,
                                 .data_len = (size_t)st.st_size,
                                 .content_type = "application/x-tar",
                                 .timeout_ms = LOAD_MS };
    PK_CLEANUP(pk_buf_done) struct pk_buf body = PK_BUF_INIT(1u << 20);
    unsigned status = 0;
    r = pk_http_call(client, &call, &status, &body, err);
    munmap(data, (size_t)st.st_size);
    if (r < 0)
        return pk_wrap(err, "Podman at %s", socket_path), r;
    if (status >= 400) {
        const char *text = body.data != NULL ? body.data : "";
        bool full = strstr(text, "no space left") != NULL;
        pk_fail(err, full ? PK_E_NOSPACE : PK_E_IO, "Podman does not take the image: %.300s", text);
        pk_hint(err, full ? "free space where Podman keeps its images: podman system df"
                          : "see what Podman's service logs");
        return full ? PK_E_NOSPACE : PK_E_IO;
    }
    return 0;
}

static int load_by_program(const char *archive_path, struct pk_error *err)
{
    const char *const argv[] = { "podman", "load", "--quiet", "--input", archive_path, NULL };
    struct pk_proc_options options = { .argv = argv, .timeout_ms = LOAD_MS };
    int r = pk_proc_check(&options, NULL, err);
    if (r == PK_E_NOTFOUND)
        return no_podman(r, err);
    if (r < 0)
        pk_hint(err, "is there space where Podman keeps its images? podman system df");
    return r;
}

int pk_podman_image_load(const char *socket, const char *archive_path, struct pk_error *err)
{
    return service_listens(socket) ? load_by_service(socket, archive_path, err)
                                   : load_by_program(archive_path, err);
}
