<?php

declare(strict_types=1);

namespace PMP\Analytics\Tests;

use PMP_Config;
use WP_REST_Request;
use WP_REST_Response;

/**
 * Calls of the mesh to this site, signed with a secret that both know.
 */
trait SignedCalls
{
    private const SECRET = 'whsec_c2hhcmVkIGJ5IHRoZSBtZXNoIGFuZCBhbm90aGVyIHN5c3RlbQ==';

    private function share_secret(): void
    {
        update_option(PMP_Config::OPTION, ['erasure_secret' => self::SECRET]);
    }

    /**
     * A call as the mesh makes it, but for what is changed.
     *
     * @param array<string, mixed>  $data
     * @param array<string, string> $changes
     */
    private function signed_call(string $path, string $type, array $data, array $changes = []): WP_REST_Response
    {
        $body = (string) wp_json_encode(['type' => $type, 'timestamp' => gmdate('c'), 'data' => $data]);
        $id = $changes['webhook-id'] ?? 'r1-wordpress';
        $time = $changes['webhook-timestamp'] ?? (string) (int) $this->clock->now();
        $key = base64_decode(substr($changes['secret'] ?? self::SECRET, 6));
        $signed = implode('.', [$changes['signed-id'] ?? $id, $time, $changes['signed-body'] ?? $body]);
        $signature = 'v1,' . base64_encode(hash_hmac('sha256', $signed, $key, true));
        $request = new WP_REST_Request('POST', $path);
        $request->set_header('webhook-id', $id);
        $request->set_header('webhook-timestamp', $time);
        $request->set_header('webhook-signature', $changes['webhook-signature'] ?? ($changes['further'] ?? '') . $signature);
        $request->set_body($body);
        return rest_do_request($request);
    }
}
