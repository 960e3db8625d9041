<?php

declare(strict_types=1);

namespace PMP\Analytics\Connect;

use PMP\Analytics\Hook;
use PMP\Analytics\Registerable;
use PMP\Analytics\Rest\CollectRoute;
use PMP\Analytics\Rest\Refusal;
use PMP_API_Client;
use PMP_Config;
use WP_REST_Request;
use WP_REST_Response;

/**
 * The way from the mesh to this site, which an erasure takes: the mesh is asked to call GET pmp/v1/connection/<id>, which gives the
 * answer that is expected of it for a minute, so that it is this site and no other that the mesh has reached.
 */
final class WayBack implements Registerable
{
    private const PATH = '/connection';

    private const CHECK = '/api/v1/connections/check';

    private const ANSWER = 'pmp_check_';

    private const BYTES = 16;

    public function __construct(private readonly PMP_Config $config, private readonly PMP_API_Client $client)
    {
    }

    public function register(): void
    {
        Hook::action('rest_api_init', [$this, 'add_route']);
    }

    public function add_route(): void
    {
        register_rest_route(CollectRoute::SPACE, self::PATH . '/(?P<id>[0-9a-f]{32})', [
            'methods' => 'GET',
            'callback' => [$this, 'answer'],
            'permission_callback' => '__return_true',
        ]);
    }

    public function answer(WP_REST_Request $request): WP_REST_Response
    {
        $answer = get_transient(self::ANSWER . $request->get_url_params()['id']);
        if (! is_string($answer)) {
            return Refusal::of(404, 5, 'No check of the connection is in progress.');
        }
        return new WP_REST_Response(['answer' => $answer], 200, ['Cache-Control' => 'no-store']);
    }

    /**
     * @return list<Finding>
     */
    public function check(): array
    {
        [$id, $answer] = [bin2hex(random_bytes(self::BYTES)), bin2hex(random_bytes(self::BYTES))];
        $address = rest_url(CollectRoute::SPACE);
        set_transient(self::ANSWER . $id, $answer, MINUTE_IN_SECONDS);
        $body = ['url' => $address . self::PATH . "/{$id}", 'answer' => $answer];
        $reply = $this->client->call('POST', self::CHECK, (string) wp_json_encode($body, JSON_UNESCAPED_SLASHES));
        delete_transient(self::ANSWER . $id);
        if ($reply->status !== 200) {
            /* translators: %s: the mesh's reason. */
            return [Finding::minor(sprintf(__('The mesh did not try to reach this site: %s', 'pmp-analytics'), $reply->reason()))];
        }
        $why = $this->why_not((string) ($reply->body['finding'] ?? ''), (int) ($reply->body['status'] ?? 0));
        if ($why !== '') {
            /* translators: 1: address of this site, 2: why not. */
            $text = __('The mesh does not reach this site at %1$s: %2$s. Reports need only the other way.', 'pmp-analytics');
            return [Finding::minor(sprintf($text, $address, $why))];
        }
        /* translators: %s: address of this site. */
        $reached = Finding::good(sprintf(__('The mesh reaches this site at %s.', 'pmp-analytics'), $address));
        return [$reached, $this->erasures((bool) ($reply->body['is_called_on_erasure'] ?? false))];
    }

    private function why_not(string $finding, int $status): string
    {
        return match ($finding) {
            'reached' => '',
            'unreachable' => __('nothing answers there', 'pmp-analytics'),
            /* translators: %d: an HTTP status such as 403. */
            'refused' => sprintf(__('the call was refused with HTTP %d', 'pmp-analytics'), $status),
            default => __('something else answers there', 'pmp-analytics'),
        };
    }

    private function erasures(bool $is_called): Finding
    {
        if ($is_called && $this->config->erasure_secret() !== '') {
            return Finding::good(__('Erasures of the mesh are passed on to this site.', 'pmp-analytics'));
        }
        return Finding::minor($is_called
            ? __('This site refuses erasures that the mesh passes on, because the erasure secret is missing here.', 'pmp-analytics')
            : __('Erasures of the mesh are not passed on to this site: its PMP_SITE_ERASURE_CALLS does not list it.', 'pmp-analytics'));
    }
}
