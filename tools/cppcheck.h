/* SPDX-License-Identifier: Apache-2.0 */
/* For tools/analyse only: macros of jansson and libbpf, which cppcheck does not find as it reads
 * no system headers. */
#define json_array_foreach(list, i, item) \
    for ((i) = 0; (i) < json_array_size(list) && ((item) = json_array_get(list, i)); (i)++)
#define json_object_foreach(map, key, item)                   \
    for ((key) = json_object_iter_key(json_object_iter(map)); \
         (key) && ((item) = json_object_get(map, key));       \
         (key) = json_object_iter_key(json_object_key_to_iter(key)))
#define bpf_object__for_each_program(item, object) \
    while (((item) = bpf_object__next_program((object), (item))) != NULL)
#define LIBBPF_OPTS(type, name, ...) struct type name = { 0, __VA_ARGS__ }
