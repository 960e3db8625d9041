<?php

declare(strict_types=1);

namespace PMP\Analytics\Rest;

use PMP\Analytics\Api\Token;
use PMP\Analytics\Clock;
use PMP\Analytics\Delivery\Drainer;
use PMP\Analytics\Hook;
use PMP\Analytics\Registerable;
use PMP_API_Client;
use WP_REST_Response;

/**
 * POST pmp/v1/arrivals: delivers what waits, and says how many page views of today the mesh has counted. The settings call it while
 * they are open, so that a new connection is seen to work within seconds, even without WP-Cron.
 */
final class ArrivalsRoute implements Registerable
{
    public const PATH = '/arrivals';

    private const FIGURES = '/api/v1/analytics/dashboard';

    private const SECONDS = 3;

    public function __construct(
        private readonly PMP_API_Client $client,
        private readonly Drainer $drainer,
        private readonly Clock $clock,
    ) {
    }

    public function register(): void
    {
        Hook::action('rest_api_init', [$this, 'add_route']);
    }

    public function add_route(): void
    {
        register_rest_route(CollectRoute::SPACE, self::PATH, [
            'methods' => 'POST',
            'callback' => [$this, 'count'],
            // WordPress ignores a user's cookie without the nonce of a page of wp-admin.
            'permission_callback' => static fn (): bool => current_user_can('manage_options'),
        ]);
    }

    public function count(): WP_REST_Response
    {
        $this->drainer->drain((float) self::SECONDS);
        $today = wp_date('Y-m-d', (int) $this->clock->now());
        $path = self::FIGURES . "?from={$today}&to={$today}&compare=none&top=1";
        $reply = $this->client->call('GET', $path, seconds: self::SECONDS, scope: Token::READ);
        $figures = array_column((array) ($reply->body['figures'] ?? []), 'value', 'key');
        if ($reply->status !== 200 || ! isset($figures['page_views'])) {
            /* translators: %s: why the mesh can't be reached. */
            $text = sprintf(__('The mesh could not be reached: %s', 'pmp-analytics'), $reply->reason());
            return new WP_REST_Response(['page_views' => null, 'text' => $text]);
        }
        $views = (int) $figures['page_views'];
        /* translators: %s: number of page views. */
        $text = _n('%s page view has arrived in the mesh today.', '%s page views have arrived in the mesh today.', $views, 'pmp-analytics');
        if ($views === 0) {
            $text = __('No page view has arrived in the mesh today.', 'pmp-analytics');
        }
        return new WP_REST_Response(['page_views' => $views, 'text' => sprintf($text, number_format_i18n($views))]);
    }
}
