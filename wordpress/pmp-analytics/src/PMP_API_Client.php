<?php

declare(strict_types=1);

use PMP\Analytics\Api\Reply;
use PMP\Analytics\Api\Token;
use PMP\Analytics\Clock;

/**
 * HTTP client of the mesh's gateway, without retries. Only deliveries and wp-admin use it, never a page or a checkout.
 */
class PMP_API_Client
{
    private const TIMEOUT_SECONDS = 8;

    /** Throughput of the slowest supported connection, so that a large batch does not time out forever. */
    private const BYTES_PER_SECOND = 65_536;

    private const MAX_ANSWER_BYTES = 1 << 20;

    private const MAX_RETRY_AFTER_SECONDS = 3600.0;

    private readonly PMP_Config $config;

    private readonly Clock $clock;

    public function __construct(?PMP_Config $config = null, ?Clock $clock = null)
    {
        $this->config = $config ?? new PMP_Config();
        $this->clock = $clock ?? new Clock();
    }

    /**
     * @param string $path    Begins with a slash.
     * @param string $json    Body; empty for none.
     * @param int    $seconds Timeout for a small body.
     * @param int    $max_bytes Longest answer; a longer one is truncated and therefore not valid JSON.
     * @param string $scope   What the call's token allows.
     */
    public function call(
        string $method,
        string $path,
        string $json = '',
        int $seconds = self::TIMEOUT_SECONDS,
        int $max_bytes = self::MAX_ANSWER_BYTES,
        string $scope = Token::SITE,
    ): Reply {
        if (! $this->config->is_complete()) {
            return new Reply(0, null, 'The gateway is not configured.');
        }
        $token = Token::mint($this->config->jwt_secret(), (int) $this->clock->now(), $scope);
        $request = [
            'method' => $method,
            'timeout' => $seconds + intdiv(strlen($json), self::BYTES_PER_SECOND),
            'limit_response_size' => $max_bytes,
        ];
        $request += $json === '' ? [] : ['body' => $json];
        $headers = ['x-api-key' => $this->config->api_key()] + ($json === '' ? [] : ['Content-Type' => 'application/json']);
        return $this->send($this->config->gateway_url() . $path, $token, $headers, $request);
    }

    /**
     * Takes what a mesh has for the token of a one-time code, before the mesh is configured.
     */
    public function take(string $url, string $token): Reply
    {
        $request = ['method' => 'POST', 'timeout' => self::TIMEOUT_SECONDS, 'limit_response_size' => self::MAX_ANSWER_BYTES];
        return $this->send($url, $token, [], $request);
    }

    /**
     * @param array<string, string> $headers
     * @param array<string, mixed>  $request Arguments of wp_remote_request().
     */
    private function send(string $url, string $token, array $headers, array $request): Reply
    {
        $headers += ['Accept' => 'application/json', 'Authorization' => "Bearer {$token}"];
        // A redirect would send the key to another host.
        $request += ['redirection' => 0, 'sslverify' => true, 'user-agent' => 'pmp-analytics', 'headers' => $headers];
        // Not wp_safe_remote_request(): it refuses private networks, where a gateway may be.
        return $this->reply(wp_remote_request($url, $request));
    }

    /**
     * @param array<string, mixed>|WP_Error $answer
     */
    private function reply(array|WP_Error $answer): Reply
    {
        if (is_wp_error($answer)) {
            return new Reply(0, null, $answer->get_error_message());
        }
        $text = wp_remote_retrieve_body($answer);
        $body = json_decode($text, true);
        return new Reply(
            (int) wp_remote_retrieve_response_code($answer),
            is_array($body) ? $body : null,
            '',
            $this->retry_after($this->header($answer, 'retry-after')),
            $text,
            $this->header($answer, 'content-type'),
            $this->header($answer, 'content-disposition'),
        );
    }

    /**
     * @param array<string, mixed> $answer
     * @return string Empty if it was not sent, or more than once.
     */
    private function header(array $answer, string $name): string
    {
        $value = wp_remote_retrieve_header($answer, $name);
        return is_string($value) ? $value : '';
    }

    /**
     * Seconds, from a number or a date (RFC 9110).
     */
    private function retry_after(string $header): ?float
    {
        if (is_numeric($header)) {
            $seconds = (float) $header;
        } elseif ($header !== '' && ($date = strtotime($header)) !== false) {
            $seconds = $date - $this->clock->now();
        } else {
            return null;
        }
        return min(max($seconds, 1.0), self::MAX_RETRY_AFTER_SECONDS);
    }
}
